"""python -m simulator: flags, SIMULATOR_* variables, the server."""

import argparse
import dataclasses
import os
import pathlib
import socket
import sys

import uvicorn

from simulator.app import create_app
from simulator.connections import Connection
from simulator.faults import FaultSettings, changed

EPILOG = """Every option is also read from the environment: SIMULATOR_PORT for --port, and so on.
A flag wins. POST /_simulator/settings changes all but the first three while it runs."""


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = _parser()
    given = parser.parse_args()
    try:
        names = [field.name for field in dataclasses.fields(FaultSettings)]
        chosen = {name: value for name in names if (value := getattr(given, name)) is not None}
        options = changed(FaultSettings(), chosen)
        listener = socket.create_server((given.host, int(given.port)), backlog=2048)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    _Server(options, given.ready_file).run(sockets=[listener])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulator", epilog=EPILOG, description=__doc__)

    def option(flag: str, note: str, default: str | None = None) -> None:
        name = "SIMULATOR_" + flag.strip("-").replace("-", "_").upper()
        parser.add_argument(flag, default=os.environ.get(name, default), help=note)

    option("--host", "address to listen on (127.0.0.1)", "127.0.0.1")
    option("--port", "port to listen on; 0 takes a free one (8787)", "8787")
    option("--ready-file", "file that gets the base URL once it listens")
    for field in dataclasses.fields(FaultSettings):
        known = field.metadata["one_of"] and f": {', '.join(field.metadata['one_of'])}"
        option("--" + field.name.replace("_", "-"), f"{field.metadata['note']}{known or ''} ({field.default})")
    return parser


class _Server(uvicorn.Server):
    """A server that says where it listens, once it does."""

    def __init__(self, options: FaultSettings, ready_file: str | None) -> None:
        app = create_app(options)
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                lifespan="off",
                timeout_graceful_shutdown=1,
                log_level="warning",
                access_log=False,
            )
        )
        self._ready_file = ready_file

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = (sockets or [])[0].getsockname()[:2]
        url = f"http://{host}:{port}/v1"
        if self._ready_file:
            _tell(pathlib.Path(self._ready_file), url)
        sys.stdout.write(f"simulator listening on {url}\n")
        sys.stdout.flush()


def _tell(path: pathlib.Path, url: str) -> None:
    """Write the file in one move: whoever waits for it never reads half a URL."""
    part = path.with_name(path.name + ".part")
    part.write_text(url, encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    main()
