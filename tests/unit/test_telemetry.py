"""Logs: one form for every library, ids on each line, no secret on any."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from worker.observation.telemetry import configure
from worker.settings import Settings

log = structlog.get_logger("worker.test")


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Take back what `configure` sets for the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capture: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return what stands on stderr, which is JSON; nothing may stand on stdout."""
    out, err = capture.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def test_our_lines_and_a_library_s_carry_the_same_ids(capsys: pytest.CaptureFixture[str]) -> None:
    """A line of Celery inside a run is found under the run's id too."""
    configure(Settings(log_format="json"))
    with structlog.contextvars.bound_contextvars(run_id="r1", thread_id="t1", attempt=2, worker="w1"):
        log.info("run claimed", due=3)
        logging.getLogger("celery.worker").warning("from %s", "celery")
    ours, theirs = lines(capsys)
    ids = {"run_id": "r1", "thread_id": "t1", "attempt": 2, "worker": "w1"}
    assert ids.items() <= ours.items()
    assert ids.items() <= theirs.items()
    assert (ours["event"], ours["due"], ours["level"], ours["logger"]) == ("run claimed", 3, "info", "worker.test")
    assert (theirs["event"], theirs["level"]) == ("from celery", "warning")
    assert "timestamp" in theirs


def test_a_second_configure_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Celery asks for logging more than once: each line still comes once."""
    configure(Settings(log_format="console"))
    configure(Settings(log_format="json"))
    log.info("once")
    (line,) = lines(capsys)
    assert line["event"] == "once"


def test_auto_is_json_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    """stderr is no terminal here."""
    configure(Settings(log_format="auto"))
    log.info("hello")
    assert lines(capsys)[0]["event"] == "hello"


def test_console_lines_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """The same fields, without JSON and, in a pipe, without colours."""
    configure(Settings(log_format="console"))
    log.info("hello", run_id="r1")
    error = capsys.readouterr().err
    assert "hello" in error
    assert "run_id=r1" in error
    assert "\x1b" not in error


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_secret_passes_wherever_it_stands(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The last guard: names, texts, nested values, objects, exceptions and other libraries' lines."""

    class Request:
        def __repr__(self) -> str:
            return "Request(Authorization: Bearer hunter2secret)"

    configure(Settings.model_validate({"log_format": log_format}))
    log.info("a", api_key="hunter2secret", password="hunter2secret", Authorization="hunter2secret")
    log.info("b", url="redis://:hunter2secret@host/0", key_in_text="with sk-hunter2secret inside")
    log.info("c", headers={"x": ["Bearer hunter2secret"], "authorization": "hunter2secret"}, request=Request())
    logging.getLogger("library").warning("connect %s", "postgresql://u:hunter2secret@host/db")
    try:
        raise ValueError("refused: sk-hunter2secret")
    except ValueError:
        log.exception("d")
        logging.getLogger("library").exception("e")
    error = capsys.readouterr().err
    assert "hunter2secret" not in error
    assert "refused: sk-***" in error
    assert "redis://:***@host/0" in error


def test_counts_of_tokens_are_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    """Usage has to stay readable."""
    configure(Settings(log_format="json"))
    log.info("settled", input_tokens=5, tokens={"output": 7})
    assert {"input_tokens": 5, "tokens": {"output": 7}}.items() <= lines(capsys)[0].items()


def test_what_libraries_attach_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Celery attaches task arguments to its records: message text."""
    configure(Settings(log_format="json"))
    logging.getLogger("celery.app.trace").info("received", extra={"data": {"args": "PRIVATE TEXT"}})
    assert "PRIVATE TEXT" not in json.dumps(lines(capsys))


@pytest.mark.parametrize(("level", "expected"), [("DEBUG", ["d", "i"]), ("INFO", ["i"]), ("WARNING", [])])
def test_the_level_is_the_setting_s(level: str, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Libraries that log whole requests stay quiet even at DEBUG."""
    configure(Settings.model_validate({"log_format": "json", "log_level": level}))
    log.debug("d")
    log.info("i")
    for name in ("openai._base_client", "httpx2", "httpcore2.connection"):
        logging.getLogger(name).info("noise")
    assert [line["event"] for line in lines(capsys)] == expected
