"""Events become counts that Prometheus reads; names from outside cannot make labels without end."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.ground import Ground
from worker.observation.metrics import Backlog, Metrics
from worker.response import Usage
from worker.store.claiming import Claim
from worker.store.overview import Due


@pytest.fixture
def claim(sqlite_url: str) -> Iterator[Claim]:
    """Give the claim of a run of the assistant `helper`, begun a minute ago."""
    ground = Ground(sqlite_url)
    ground.boot()
    ground.submit(timeout=600.0)
    yield replace(ground.take(), seconds_left=540.0)
    ground.close()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"runwright_{name}", labels)


def told(*events: tuple[str, dict[str, Any]]) -> Metrics:
    metrics = Metrics(["calculate"])
    for name, fields in events:
        metrics(name, fields)
    return metrics


def test_an_ended_run_is_counted_with_its_tokens_cost_and_times(claim: Claim) -> None:
    """Seconds are those that the run took; usage of every step adds up."""
    took = {"seconds": 60.5, "provider_ended_at": time.time() - 2}
    ended = {"claim": claim, "status": "completed", "usage": Usage(10, 5, 0.25), **took}
    metrics = told(
        ("run.claimed", {"claim": claim}),
        ("run.requires_action", {"claim": claim, "tools": ["calculate"], "usage": Usage(7, 3, None)}),
        ("run.ended", ended),
    )
    assert value(metrics, "run_ends_total", status="completed", assistant="helper") == 1
    assert value(metrics, "tokens_total", direction="input", assistant="helper") == 17
    assert value(metrics, "tokens_total", direction="output", assistant="helper") == 8
    assert value(metrics, "cost_usd_total", assistant="helper") == 0.25
    assert value(metrics, "run_seconds_sum") == 60.5
    assert 2 <= (value(metrics, "end_to_commit_seconds_sum") or 0) < 10


@pytest.mark.parametrize(
    ("event", "fields", "name", "labels"),
    [
        ("claim.lost", {}, "lost_claims_total", {}),
        ("provider.refused", {"code": "http_429"}, "provider_refusals_total", {"code": "http_429"}),
        ("run.retried", {"code": "server_error"}, "retries_total", {"reason": "server_error"}),
        ("run.crashed", {"message": "m"}, "retries_total", {"reason": "crashed"}),
        ("run.unknown", {}, "unknown_outcomes_total", {}),
        ("run.adopted", {}, "adopted_total", {}),
        ("run.reissued", {}, "reissued_total", {}),
        ("run.stream_broken", {}, "broken_streams_total", {}),
        ("tool.finished", {"tool": "calculate"}, "tool_calls_total", {"tool": "calculate", "outcome": "completed"}),
        (
            "tool.finished",
            {"tool": "x", "error": "timeout"},
            "tool_calls_total",
            {"tool": "other", "outcome": "timeout"},
        ),
    ],
)
def test_each_event_has_its_count(
    claim: Claim, event: str, fields: dict[str, Any], name: str, labels: dict[str, str]
) -> None:
    """One event is one more; a tool that is not registered is `other`."""
    assert value(told((event, {"claim": claim, **fields})), name, **labels) == 1


def test_reaped_runs_are_counted_by_number() -> None:
    """The event of a reaper has no claim."""
    assert value(told(("worker.reaped", {"runs": 3}), ("worker.tended", {})), "reaped_runs_total") == 3


def test_codes_from_outside_make_no_labels_without_end(claim: Claim) -> None:
    """After a hundred different ones the rest is `other`; those that are known go on being counted."""
    refused = [("provider.refused", {"claim": claim, "code": f"code_{number}"}) for number in range(150)]
    metrics = told(*refused, refused[0])
    assert value(metrics, "provider_refusals_total", code="code_0") == 2
    assert value(metrics, "provider_refusals_total", code="code_149") is None
    assert value(metrics, "provider_refusals_total", code="other") == 50


def test_the_page_is_prometheus_text() -> None:
    """The counts stand there from the beginning, as 0, and no series says when a counter was made."""
    page = told().page()
    assert page.kind.startswith("text/plain")
    assert b"\nrunwright_unknown_outcomes_total 0.0\n" in page.body
    assert b"_created" not in page.body


@pytest.mark.parametrize(
    ("backlog", "shown"),
    [
        ([Due("a", 5, 9.0), Due("b", 7, 2.0)], {"mine": 0.0, "a": 5.0, "b": 7.0}),
        ([Due(f"q{number}", 200 - number, 1.0) for number in range(200)], None),
        (None, {}),
    ],
)
def test_the_backlog_is_a_gauge_per_queue(backlog: list[Due] | None, shown: dict[str, float] | None) -> None:
    """Our own queue is there with 0; of very many queues the longest; none at all where the database is away."""
    runs, _oldest = Backlog(lambda: backlog, ["mine"]).collect()
    samples = {sample.labels["queue"]: sample.value for sample in runs.samples}
    if shown is None:
        assert (len(samples), samples["mine"], samples["q0"], "q199" in samples) == (101, 0.0, 200.0, False)
    else:
        assert samples == shown


def test_limits_and_the_waits_for_them_are_shown() -> None:
    """The newest limit of each model, and how long creates waited."""
    known = {"model": "gpt-5", "requests": 500, "tokens": 0}
    metrics = told(
        ("limit.known", {**known, "requests": 60}),
        ("limit.known", known),
        ("limit.waited", {"model": "gpt-5", "waited": 0.5}),
    )
    assert value(metrics, "limit", model="gpt-5", kind="requests") == 500
    assert value(metrics, "limit", model="gpt-5", kind="tokens") == 0
    assert value(metrics, "limit_wait_seconds_sum") == 0.5
