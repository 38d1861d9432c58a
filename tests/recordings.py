"""What OpenAI's server was recorded saying, and its published document as a judge; both lie outside the repository."""

import gzip
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers import ROOT

FOLDER = Path(os.environ.get("TEST_RECORDED") or ROOT.parent / "shared" / "recorded")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One recorded answer; `name` says where it comes from."""

    name: str
    method: str
    path: str
    status: int
    body: str


def exchanges() -> list[Exchange]:
    """Return every recorded exchange that was answered with JSON; none where the recordings are absent."""
    file = FOLDER / "openai-exchanges.jsonl.gz"
    if not file.exists():
        return []
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [_exchange(number, row) for number, row in enumerate(rows, 1) if row["ctype"] == "application/json"]


def _exchange(number: int, row: dict[str, Any]) -> Exchange:
    name = f"line {number}: {row['method']} {row['path']} of {row['repo']} {row['file']}"
    return Exchange(name, row["method"], row["path"], row["status"], row["body"])


def need(name: str) -> Path:
    """Return a file of the recordings; without it the test is skipped here and fails in CI."""
    path = FOLDER / name
    if path.exists():
        return path
    reason = f"{name} of the recordings is absent; TEST_RECORDED names their folder"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def published() -> Any:
    """Return OpenAI's published document, which judges requests and answers."""
    spec = importlib.util.spec_from_file_location("spec_check", need("spec_check.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Spec()
