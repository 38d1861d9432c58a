"""What Prometheus scrapes: the events of this worker counted, its own state, and the backlog that all workers share."""

from collections.abc import Callable, Collection, Iterator, Mapping
from time import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from worker.observation.probe import Page
from worker.observation.vitals import Vitals
from worker.response import Usage
from worker.store.claiming import Claim
from worker.store.overview import Due

OTHER = "other"
# Values of one label that come from outside (codes, names): so many, and everything further is `other`.
_MOST_VALUES = 100
_RUN_BUCKETS = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 28800)
_COMMIT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

# What is only counted, by the event.
_COUNTED = {
    "claim.lost": ("lost_claims_total", "Runs let go because another worker has them."),
    "run.unknown": ("unknown_outcomes_total", "Steps of which nobody can tell whether they were created."),
    "run.adopted": ("adopted_total", "Steps found at the provider after their creation was interrupted."),
    "run.reissued": ("reissued_total", "Steps asked for again, since no provider went on with them."),
    "run.stream_broken": ("broken_streams_total", "Streams that ended before the step that they follow."),
}


class Metrics:
    """A subscriber of events that counts; `tools` are the names that may stand in a label."""

    def __init__(self, tools: Collection[str]) -> None:
        """Set all counters up, in a registry of their own."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
        self.registry = registry = CollectorRegistry()
        self._tools = frozenset(tools)
        self._values: dict[str, set[str]] = {}

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"runwright_{name}", meaning, labels, registry=registry)

        def histogram(name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"runwright_{name}", meaning, buckets=buckets, registry=registry)

        self._refusals = counter("provider_refusals_total", "Requests that failed in passing and are repeated.", "code")
        self._tool_calls = counter("tool_calls_total", "Tool calls that ended.", "tool", "outcome")
        self._retries = counter("retries_total", "Attempts that failed and are followed by another.", "reason")
        self._tokens = counter("tokens_total", "Tokens that the provider counted.", "direction", "assistant")
        self._cost = counter("cost_usd_total", "What they cost by the price list.", "assistant")
        self._ends = counter("run_ends_total", "Runs that ended.", "status", "assistant")
        self._reaped = counter("reaped_runs_total", "Runs taken from workers whose lease ran out.")
        self._limit_waits = histogram(
            "limit_wait_seconds", "Waits of creates for the provider's limits.", _COMMIT_BUCKETS
        )
        self._limits = Gauge("runwright_limit", "Limits for a minute.", ["model", "kind"], registry=registry)
        self._run_seconds = histogram(
            "run_seconds", "From a run's first claim to its end, but for people, retries and limits.", _RUN_BUCKETS
        )
        self._end_to_commit = histogram(
            "end_to_commit_seconds", "From the provider's end to the committed result.", _COMMIT_BUCKETS
        )
        started = Gauge("runwright_worker_start_time_seconds", "When this worker started.", registry=registry)
        started.set_to_current_time()
        ProcessCollector(registry=registry)
        self._on: dict[str, Callable[[Mapping[str, Any]], None]] = {
            **{name: _count(counter(*told)) for name, told in _COUNTED.items()},
            "run.ended": self._ended,
            "run.retried": lambda fields: self._retries.labels(self._value("reason", fields.get("code"))).inc(),
            "run.crashed": lambda _fields: self._retries.labels("crashed").inc(),
            "provider.refused": lambda fields: self._refusals.labels(self._value("code", fields.get("code"))).inc(),
            "tool.finished": self._tool_finished,
            "limit.waited": lambda fields: self._limit_waits.observe(fields["waited"]),
            "limit.known": self._limit_known,
            "worker.reaped": lambda fields: self._reaped.inc(fields["runs"]),
        }

    def __call__(self, name: str, fields: Mapping[str, Any]) -> None:
        """Count one event."""
        if handle := self._on.get(name):
            handle(fields)
        if usage := fields.get("usage"):
            self._used(fields["claim"], usage)

    def watch(self, vitals: Vitals, queues: Collection[str], room: int) -> None:
        """Show the state of a worker of these queues, and the backlog of all, beside the counts."""

        def gauge(name: str, meaning: str, value: Callable[[], float]) -> None:
            Gauge(f"runwright_{name}", meaning, registry=self.registry).set_function(value)

        gauge("in_flight", "Runs that this worker drives.", vitals.in_flight)
        gauge("max_in_flight", "Runs that this worker has room for.", lambda: room)
        gauge("loop_lag_seconds", "How long the engine's loop takes to come round.", lambda: _number(vitals.lag()))
        self.registry.register(Backlog(vitals.backlog, queues))

    def page(self) -> Page:
        """Return everything in Prometheus' text format."""
        return Page(generate_latest(self.registry), CONTENT_TYPE_LATEST)

    def _ended(self, fields: Mapping[str, Any]) -> None:
        claim: Claim = fields["claim"]
        self._ends.labels(fields["status"], self._value("assistant", claim.assistant)).inc()
        self._run_seconds.observe(fields["seconds"])
        if ended_at := fields.get("provider_ended_at"):
            self._end_to_commit.observe(max(0.0, time() - ended_at))

    def _tool_finished(self, fields: Mapping[str, Any]) -> None:
        tool = fields["tool"] if fields["tool"] in self._tools else OTHER
        self._tool_calls.labels(tool, fields.get("error") or "completed").inc()

    def _limit_known(self, fields: Mapping[str, Any]) -> None:
        model = self._value("model", fields["model"])
        for kind in ("requests", "tokens"):
            self._limits.labels(model, kind).set(fields[kind])

    def _used(self, claim: Claim, usage: Usage) -> None:
        assistant = self._value("assistant", claim.assistant)
        for direction, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            self._tokens.labels(direction, assistant).inc(tokens or 0)
        self._cost.labels(assistant).inc(usage.cost_usd or 0.0)

    def _value(self, label: str, value: str | None) -> str:
        seen, value = self._values.setdefault(label, set()), value or "unknown"
        if value not in seen and len(seen) >= _MOST_VALUES:
            return OTHER
        seen.add(value)
        return value


class Backlog(Collector):
    """The due runs of our queues and the longest others; nothing where the database does not tell."""

    def __init__(self, count: Callable[[], list[Due] | None], queues: Collection[str]) -> None:
        self._count = count
        self._queues = queues

    def describe(self) -> list[Any]:
        """Return nothing: to be registered, it need not be counted."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield both gauges."""
        runs = GaugeMetricFamily("runwright_due_runs", "Runs that a worker could take now.", labels=["queue"])
        oldest = GaugeMetricFamily("runwright_oldest_due_seconds", "How long the oldest is due.", labels=["queue"])
        for one in self._shown(self._count()):
            runs.add_metric([one.queue], one.runs)
            oldest.add_metric([one.queue], one.oldest)
        yield from (runs, oldest)

    def _shown(self, backlog: list[Due] | None) -> list[Due]:
        if backlog is None:
            return []
        empty = set(self._queues) - {due.queue for due in backlog}
        longest = sorted(backlog, key=lambda due: (due.queue not in self._queues, -due.runs))
        return [*(Due(queue, 0, 0.0) for queue in sorted(empty)), *longest[:_MOST_VALUES]]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _count(counter: Counter) -> Callable[[Mapping[str, Any]], None]:
    return lambda _fields: counter.inc()
