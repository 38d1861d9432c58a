"""The embedded server: real, kept, shared, adopted, and gone when the last one lets go."""

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from tests.servers import ROOT, wait_until
from worker import embedded
from worker.errors import SettingsError
from worker.settings import Settings
from worker.urls import redis_client_url


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Return a home; a server that a failing test leaves behind is ended."""
    home = tmp_path / "a home with 100% spaces"
    yield home
    if (home / "valkey").exists():
        embedded.start(home).stop()


def client(url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_client_url(url), decode_responses=True)


def test_what_it_was_told_is_there_after_a_restart(home: Path) -> None:
    """Stopping loses nothing, and the record is there exactly while it runs."""
    server = embedded.start(home)
    with client(server.url) as connection:
        connection.rpush("queue", *range(200))
    assert embedded.recorded_url(home) == server.url
    server.stop()
    server.stop()
    assert embedded.recorded_url(home) is None
    assert not (home / "redis.json").exists()
    again = embedded.start(home)
    with client(again.url) as connection:
        assert connection.llen("queue") == 200
    again.stop()
    assert again.pid != server.pid


def test_it_listens_on_no_port_and_its_folder_is_private(home: Path) -> None:
    """Nobody else on the machine reaches it."""
    server = embedded.start(home)
    with client(server.url) as connection:
        assert connection.config_get("port") == {"port": "0"}
    server.stop()
    assert (home / "valkey").stat().st_mode & 0o777 == 0o700


def test_other_processes_join_it_through_the_settings(home: Path) -> None:
    """Without REDIS_URL the recorded server is the broker and the result backend."""
    server = embedded.start(home)
    settings = Settings(home=home)
    assert settings.broker_url() == settings.result_backend_url() == server.url
    server.stop()
    with pytest.raises(SettingsError, match="REDIS_URL"):
        settings.broker_url()


def test_the_last_one_to_stop_ends_it(home: Path) -> None:
    """`runwright demo` beside `runwright up` does not take the server away from it."""
    first = embedded.start(home)
    second = embedded.start(home)
    assert second.pid == first.pid
    first.stop()
    with client(second.url) as connection:
        assert connection.ping()
    second.stop()
    assert embedded.recorded_url(home) is None
    assert first.process is not None
    first.process.wait(5)


def test_the_server_of_a_killed_process_is_adopted(home: Path) -> None:
    """Nothing is lost when its starter is killed, and the next one to stop ends it."""
    program = (
        "import pathlib, sys; from worker import embedded\n"
        "embedded.start(pathlib.Path(sys.argv[1])); print('up', flush=True); sys.stdin.read()"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", program, str(home)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"up\n"
        starter.kill()
    pid = json.loads((home / "redis.json").read_text())["pid"]
    adopter = embedded.start(home)
    assert (adopter.pid, adopter.process) == (pid, None)
    adopter.stop()
    assert embedded.recorded_url(home) is None


def test_a_killed_server_leaves_a_record_that_nobody_believes(home: Path) -> None:
    """The record alone is no proof: the server has to answer; what it had acknowledged is kept."""
    server = embedded.start(home)
    with client(server.url) as connection:
        connection.set("key", "kept")
    os.kill(server.pid, signal.SIGKILL)
    assert server.process is not None
    server.process.wait(5)
    assert embedded.recorded_url(home) is None
    again = embedded.start(home)
    with client(again.url) as connection:
        assert connection.get("key") == "kept"
    again.stop()
    assert embedded.recorded_url(home) == again.url, "its first user still holds it"
    server.stop()
    assert embedded.recorded_url(home) is None
    assert again.process is not None
    assert again.process.wait(5) == 0


def test_a_server_that_does_not_listen_is_killed(home: Path) -> None:
    """Stopping has a limit: SIGTERM reaches a suspended process only when it goes on, SIGKILL at once."""
    server = embedded.start(home)
    os.kill(server.pid, signal.SIGSTOP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "STOP_SECONDS", 0.5)
        server.stop()
    assert server.process is not None
    assert server.process.returncode == -signal.SIGKILL


def test_starts_at_the_same_time_make_one_server(home: Path) -> None:
    """Two terminals, one log on disk: a second server on it would destroy it."""
    program = (
        "import pathlib, sys; from worker import embedded\n"
        "server = embedded.start(pathlib.Path(sys.argv[1])); print(server.pid, flush=True)\n"
        "sys.stdin.read(); server.stop()"
    )
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(home)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    pids = {starter.stdout.readline() for starter in starters if starter.stdout is not None}
    assert len(pids) == 1
    assert pids != {b""}
    for starter in starters:
        starter.communicate(timeout=20)
    wait_until(lambda: embedded.recorded_url(home) is None, "the server to end")


def test_records_written_at_the_same_time_do_not_take_each_others_draft(home: Path) -> None:
    """Every starter of one server writes the record; whoever is second finds its own draft still there."""
    embedded._folder(home).mkdir(parents=True)
    with ThreadPoolExecutor(8) as starters:
        list(starters.map(lambda number: embedded._write_record(home, "redis://here", number), range(400)))
    assert [path.name for path in home.rglob("*") if path.is_file()] == [embedded._record_file(home).name]


def test_a_deep_home_still_gets_a_socket(tmp_path: Path) -> None:
    """The path of a socket is limited to about 100 bytes: a long one is replaced by a short one."""
    home = tmp_path / ("deep" * 30)
    server = embedded.start(home)
    with client(server.url) as connection:
        assert connection.ping()
    assert embedded.recorded_url(home) == server.url
    server.stop()


def test_without_any_server_program_the_error_names_the_setting(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine for which no wheel exists and nothing is installed needs REDIS_URL."""
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    monkeypatch.setenv("PATH", str(home))
    with pytest.raises(SettingsError, match=r"^REDIS_URL: .* set REDIS_URL$"):
        embedded.start(home)


def test_a_server_that_ends_at_once_is_reported_with_its_log(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says where the reason stands."""
    monkeypatch.setattr(embedded, "server_binary", lambda: Path("/bin/false"))
    with pytest.raises(SettingsError, match=r"did not start; .*valkey\.log says why"):
        embedded.start(home)


def test_a_home_that_is_a_file_is_reported(tmp_path: Path) -> None:
    """One line that names the variable and the path, not a traceback."""
    home = tmp_path / "file"
    home.write_text("")
    with pytest.raises(SettingsError, match=r"^RUNWRIGHT_HOME=.*file: cannot be used: "):
        embedded.start(home)
