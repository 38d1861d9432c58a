"""The worker's HTTP port and the signs it shows: never hanging with what is ill."""

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.ground import Ground
from tests.servers import wait_until
from tests.workbench import Provider, parts
from worker.backends.base import Pending
from worker.engine import Engine
from worker.errors import SettingsError
from worker.observation.probe import Page, Probe, signs
from worker.observation.vitals import Bounded, Vitals
from worker.settings import Settings


def get(probe: Probe, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{probe.url}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture
def probe() -> Iterator[Probe]:
    """Give a port that answers, and whose third page is broken."""
    probe = Probe("127.0.0.1:0")
    pages = {"/well": lambda: signs((True, {"n": 1})), "/ill": lambda: signs((False, {})), "/broken": lambda: 1 // 0}
    probe.start({**pages, "/text": lambda: Page(b"text")})  # type: ignore[dict-item]
    yield probe
    probe.stop()


def test_every_page_is_answered(probe: Probe) -> None:
    """200 where all is well and 503 where not; an unknown path lists those there are; an error keeps to itself."""
    assert get(probe, "/text?x=1") == (200, "text")
    status, body = get(probe, "/well")
    assert (status, json.loads(body)) == (200, {"status": "ok", "n": 1})
    status, body = get(probe, "/ill")
    assert (status, json.loads(body)) == (503, {"status": "unwell"})
    assert get(probe, "/nothing") == (404, "there are: /well /ill /broken /text\n")
    assert get(probe, "/broken") == (500, "see the worker's log\n")


def test_a_port_in_use_is_said_in_one_line(probe: Probe) -> None:
    """The line names the variable; a worker does not start with it."""
    assert probe.url is not None
    address = probe.url.removeprefix("http://")
    with pytest.raises(SettingsError, match=f"RUNWRIGHT_HTTP={address}: Address already in use"):
        Probe(address)


def test_off_answers_nothing() -> None:
    """There is no port and no thread."""
    probe = Probe("off")
    probe.start({})
    probe.stop()
    assert probe.url is None


def test_a_call_that_hangs_is_waited_for_once() -> None:
    """Each who asks gives up after the limit, and no second thread is left hanging; then it is called anew."""
    hold, calls = threading.Event(), []

    def hang() -> int:
        calls.append(1)
        hold.wait(10)
        return len(calls)

    ask = Bounded(hang, 0.05)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            ask()
    assert len(calls) == 1
    hold.set()
    wait_until(lambda: ask() == 2, "an answer of the second call", 5)


class Patient:
    """An engine on its own loop whose provider never answers, and its vitals."""

    loop: Any

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.engine = Engine("node", ["default"], self._parts, lambda _queues: None)
        self.engine.start(lambda: None)
        settings = Settings.from_env({"DATABASE_URL": ground.database.url, "RUNWRIGHT_LEASE": "1"})
        self.vitals = Vitals(settings, self.engine, self.loop, "1.0")

    def _parts(self) -> Any:
        self.loop = asyncio.get_running_loop()
        return parts(self.ground, Provider(Pending()))

    def close(self) -> None:
        self.engine.stop(20)
        self.vitals.close()
        self.ground.close()


@pytest.fixture
def patient(sqlite_url: str) -> Iterator[Patient]:
    """Give a running engine and its vitals."""
    patient = Patient(Ground(sqlite_url))
    yield patient
    patient.close()


def test_a_healthy_worker_says_so(patient: Patient) -> None:
    """Lag, lease, database, version, and the run that it drives."""
    patient.ground.submit()
    wait_until(patient.vitals.in_flight, "the run in flight")
    well, told = patient.vitals.ready()
    assert well, told
    assert (told["unwell"], told["in_flight"], told["lease_valid"], told["database"]) == ([], 1, True, "ok")
    assert (told["version"], told["node"], told["worker"]) == ("1.0", "node", patient.engine.worker)
    assert 0 <= told["loop_lag_seconds"] < 1
    assert patient.vitals.live()[0]


def test_a_database_that_is_away_is_no_reason_to_restart(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not ready, and alive: the worker holds its runs until the database is back. The backlog shows no number."""
    monkeypatch.setattr(patient.vitals._database, "read", lambda: 1 // 0)
    well, told = patient.vitals.ready()
    assert (well, told["unwell"], told["database"]) == (False, ["database"], "ZeroDivisionError")
    assert patient.vitals.live()[0]
    assert patient.vitals.backlog() is None


def test_a_loop_that_hangs_is_first_not_ready_and_then_dead(patient: Patient) -> None:
    """The lag grows while it hangs; past a whole lease the worker is no longer alive, and it recovers."""
    hold = threading.Event()
    patient.loop.call_soon_threadsafe(lambda: hold.wait(20))
    well, told = patient.vitals.ready()
    assert (well, "loop" in told["unwell"]) == (False, True)
    assert not patient.vitals.live()[0]
    hold.set()
    wait_until(lambda: patient.vitals.live()[0], "the loop to come round", 10)


def test_a_worker_that_stops_is_not_ready(patient: Patient) -> None:
    """It claims nothing; alive until its engine has ended, and not any more then."""
    patient.vitals.stopping = True
    assert patient.vitals.ready()[1]["unwell"] == ["stopping"]
    assert patient.vitals.live()[0]
    assert patient.engine.stop(20)
    assert patient.vitals.live() == (False, {"version": "1.0", "loop_lag_seconds": None})
    assert "loop" in patient.vitals.ready()[1]["unwell"]


def test_the_backlog_is_counted_once_for_many_scrapes(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second look within seconds asks no database."""
    assert patient.vitals.backlog() == []
    monkeypatch.setattr(patient.vitals._database, "read", lambda: 1 // 0)
    assert patient.vitals.backlog() == []
