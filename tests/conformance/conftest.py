"""The store's ground on each of the two databases; the simulator under the eyes of OpenAI's published document."""

import gzip
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from tests.conformance.ground import Ground

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECORDED = pathlib.Path(os.environ.get("TEST_RECORDED") or ROOT.parent / "shared" / "recorded")


@pytest.fixture
def ground(database_url: str) -> Iterator[Ground]:
    """Give a fresh database with an assistant; the test runs once on SQLite and once on PostgreSQL."""
    ground = Ground(database_url)
    yield ground
    ground.close()


def _judging() -> types.ModuleType:
    path = RECORDED / "spec_check.py"
    if not path.exists():
        reason = f"{path} is not there; TEST_RECORDED names the folder with OpenAI's recordings"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    spec = importlib.util.spec_from_file_location("spec_check", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """Start the simulator as a process of its own, as a user would."""
    command = [sys.executable, "-m", "simulator", "--port", "0", "--latency", "0.05:0.1"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    guard = threading.Timer(30.0, process.kill)
    guard.start()
    line = process.stdout.readline()
    guard.cancel()
    found = re.fullmatch(r"simulator listening on (http://127\.0\.0\.1:\d+/v1)\n", line)
    assert found, f"unexpected first line: {line!r}"
    yield found[1]
    process.terminate()
    assert process.wait(10) in (0, -15)
    process.stdout.close()


@pytest.fixture(scope="module")
def judge(base_url: str) -> Any:
    return _judging().Judge(base_url)


@pytest.fixture(scope="module")
def http(judge: Any) -> Iterator[httpx2.Client]:
    with judge.http_client() as client:
        yield client


@pytest.fixture(scope="module")
def recorded() -> set[str]:
    """Return every property of a response or run that api.openai.com was seen sending: the document lacks some."""
    with gzip.open(RECORDED / "openai-exchanges.jsonl.gz", "rt", encoding="utf-8") as lines:
        bodies = [
            json.loads(line)["body"] for line in lines if re.search(r'"path": "/(responses|assistants|threads)', line)
        ]
    parsed = [json.loads(body) if isinstance(body, str) and body.startswith("{") else body for body in bodies]
    return {name for body in parsed if isinstance(body, dict) for name in body}


@pytest.fixture
def client(base_url: str, http: httpx2.Client, judge: Any, recorded: set[str]) -> Iterator[openai.OpenAI]:
    """Return an SDK client; afterwards every exchange of the test must conform, and have no property of our own."""
    judge.rows.clear()
    yield openai.OpenAI(api_key="test", base_url=base_url, http_client=http, max_retries=0)
    assert judge.rows
    bad = [row for row in judge.rows if row["ok"] is False or not _names(row["unknown"]) <= recorded]
    assert not bad, "\n".join(f"{row['op']} {row['status']}: {row['errors'] or row['unknown']}" for row in bad)


def _names(unknown: list[str]) -> set[str]:
    return {name for sentence in unknown for name in re.findall(r"'(\w+)'", sentence)}


@pytest.fixture
def control(base_url: str) -> Iterator[httpx2.Client]:
    """Return a client for the simulator's own routes, on a simulator without memory or faults."""
    with httpx2.Client(base_url=base_url.removesuffix("/v1")) as plain:
        plain.post("/_simulator/reset")
        yield plain
        plain.post("/_simulator/settings", json={"rate_limit_share": 0, "error_share": 0, "latency": "0.05:0.1"})
