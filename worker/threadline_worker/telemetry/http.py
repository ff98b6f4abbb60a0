"""/metrics, /healthz and /readyz from a thread of their own, so that a wedged event loop turns /healthz red."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from socketserver import TCPServer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

__all__ = ["HealthServer"]

log = structlog.get_logger(__name__)

Reasons = Callable[[], list[str]]
#: How quickly `stop()` is heard.
_STOP_SECONDS = 0.1
#: How long a client may take to say what it wants, and to take the answer.
_REQUEST_SECONDS = 10.0
_JSON = ("Content-Type", "application/json")


class HealthServer:
    """Listens on `host:port` (0: any free one, see `.port`) from `start()` to `stop()`.

    `unhealthy` and `unready` give the reasons for a 503; no reason is a 200. Raises OSError if the port is taken.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, unhealthy: Reasons, unready: Reasons) -> None:
        self._metrics: Callable[[dict[str, Any], Any], Iterable[bytes]] = make_wsgi_app(registry)
        self._unhealthy = unhealthy
        self._unready = unready
        self._server: WSGIServer = make_server(host, port, self._answer, _ServerV6 if ":" in host else _Server, _Quiet)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_STOP_SECONDS,), name="threadline-http", daemon=True
        )

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        match environ.get("PATH_INFO"):
            case "/metrics":
                return self._metrics(environ, start_response)
            case "/healthz":
                return _verdict(self._unhealthy(), start_response)
            case "/readyz":
                return _verdict(self._unready(), start_response)
            case _:
                start_response("404 Not Found", [_JSON])
                return [b'{"paths":["/metrics","/healthz","/readyz"]}']


def _verdict(reasons: list[str], start_response: Any) -> Iterable[bytes]:
    # A list of its own for each answer: wsgiref puts this answer's Content-Length into it.
    start_response("503 Service Unavailable" if reasons else "200 OK", [_JSON])
    return [json.dumps({"ok": not reasons, "reasons": reasons}).encode()]


class _Server(ThreadingWSGIServer):
    def server_bind(self) -> None:
        """Without HTTPServer's look-up of a name nobody reads: a DNS that is away would hold the worker's loop."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class' name
        """A line instead of a traceback on stderr: most often a probe that did not wait for its answer."""
        log.warning("http.request_failed", client=str(client_address), error=repr(sys.exception()))


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    """No line per request: a probe asks every few seconds. Who asks nothing is not waited for."""

    #: Or each connection that says nothing would hold a thread for as long as it likes.
    timeout = _REQUEST_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
        """Say nothing."""
