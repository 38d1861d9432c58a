"""The worker's HTTP port: /livez, /healthz and /metrics, answered from threads of their own."""

import json
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import urlsplit

import structlog

from worker.errors import SettingsError

_log = structlog.get_logger(__name__)
_PATIENCE = 5.0  # seconds that a client may take to say what it wants


@dataclass(frozen=True, slots=True)
class Page:
    """One answer."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: int = 200


Pages = Mapping[str, Callable[[], Page]]


def signs(taken: tuple[bool, Mapping[str, Any]]) -> Page:
    """Return signs of life as a page: 200 where all is well, else 503."""
    well, told = taken
    body = json.dumps({"status": "ok" if well else "unwell", **told}).encode() + b"\n"
    return Page(body, "application/json", 200 if well else 503)


class Probe:
    """Answers GET on one address; `off` answers nothing."""

    def __init__(self, address: str) -> None:
        """Take the port, so that a worker that cannot have it does not start; raises SettingsError."""
        self._serving = False
        self._server = None if address == "off" else _bind(address)

    @property
    def url(self) -> str | None:
        """Return where it answers, None where it does not."""
        if self._server is None:
            return None
        host, port = self._server.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def start(self, pages: Pages) -> None:
        """Begin to answer."""
        if self._server:
            self._server.pages = pages
            threading.Thread(target=self._server.serve_forever, name="probe", daemon=True).start()
            self._serving = True

    def stop(self) -> None:
        """Give the port back."""
        if self._server:
            if self._serving:  # shutdown would wait for ever for a server that never began
                self._server.shutdown()
            self._server.server_close()


def _bind(address: str) -> "_Server":
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        return (_Server6 if ":" in host else _Server)((host, int(port)), _Handler)
    except OSError as error:
        raise SettingsError(f"RUNWRIGHT_HTTP={address}: {error.strerror or error}; port 0 takes a free one") from None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    pages: Pages = {}  # noqa: RUF012 - replaced, never changed

    def server_bind(self) -> None:
        """Bind without HTTPServer's look for the host's name, which may take a DNS timeout."""
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE
    server_version = "runwright"
    sys_version = ""

    def do_GET(self) -> None:
        page = self._page()
        self.send_response(page.status)
        self.send_header("Content-Type", page.kind)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        self.wfile.write(page.body)

    def _page(self) -> Page:
        make = self.server.pages.get(urlsplit(self.path).path)
        if make is None:
            return Page(f"there are: {' '.join(self.server.pages)}\n".encode(), status=404)
        try:
            return make()
        except Exception:  # noqa: BLE001 - who asks gets an answer, whatever is wrong
            _log.exception("probe_failed")
            return Page(b"see the worker's log\n", status=500)

    def log_message(self, *_arguments: Any) -> None:
        """Scrapes are no news."""
