"""A receiver of webhooks on 127.0.0.1, with or without TLS, that keeps what it got and misbehaves as it is told.

A path says how: /ok (says `words`), /status/500, /hang (never answers), /endless (200 and a body without end),
/redirect (to the metadata service), /later (503 with Retry-After), /gate (answers once the test opens it). The
certificate is for hooks.example, localhost and 127.0.0.1; its authority is `AUTHORITY`, made for these tests and
trusted nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple

from standardwebhooks import Webhook

__all__ = ["AUTHORITY", "SECRET", "Received", "Receiver", "receiving"]

_FOLDER: Final = Path(__file__).parent / "receiver_tls"
AUTHORITY: Final = str(_FOLDER / "authority.pem")
#: What workers of the tests sign with.
SECRET: Final = "whsec_" + "dGhyZWFkbGluZSB0ZXN0cyBvZiB3ZWJob29rcw=="


class Received(NamedTuple):
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    def verified(self, secret: str = SECRET) -> Any:
        """The payload, if the library of Standard Webhooks finds the signature right."""
        return Webhook(secret).verify(self.body, self.headers)


class Receiver(ThreadingHTTPServer):
    """See the module. `next()` and `arrived()` wait for a request; each is given once."""

    daemon_threads = True

    def __init__(self, *, tls: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tls = tls
        self.leaving = threading.Event()
        self.gate = threading.Event()
        self.requests: queue.Queue[Received] = queue.Queue()
        self.words = ""
        self.most_at_once = 0
        self._at_once = 0
        self._counting = threading.Lock()
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(_FOLDER / "receiver.pem")
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http{'s' if self.tls else ''}://{host}:{self.port}{path}"

    def next(self, timeout: float = 20) -> Received:
        """The next request; queue.Empty if none comes."""
        return self.requests.get(timeout=timeout)

    async def arrived(self, timeout: float = 20) -> Received:
        """The next request, awaited beside what the test's own loop sends."""
        return await asyncio.to_thread(self.next, timeout)

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """How many requests are in hand at once."""
        with self._counting:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._counting:
                self._at_once -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave whenever they like."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        received = Received(self.path, dict(self.headers.items()), body)
        with self.server.counted():
            self.server.requests.put(received)
            self._answer(self.path.partition("?")[0])

    def _answer(self, path: str) -> None:
        match path.split("/")[1:]:
            case ["hang"]:
                self.server.leaving.wait(60)
            case ["gate"]:
                self.server.gate.wait(60)
                self._say(204)
            case ["endless"]:
                self._say(200, length=None)
                with contextlib.suppress(OSError):
                    while not self.server.leaving.wait(0.001):
                        self.wfile.write(b"x" * 4096)
            case ["redirect"]:
                self._say(302, {"Location": "http://169.254.169.254/latest/meta-data/"})
            case ["later"]:
                self._say(503, {"Retry-After": "1000"}, b"busy \0 now")
            case ["status", code]:
                self._say(int(code), body=b"as you wish\n" * 50)
            case _:
                self._say(200, body=self.server.words.encode())

    def _say(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", length: int | None = 0
    ) -> None:
        self.send_response(status)
        if length is not None and status != 204:
            self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test's output to itself."""


@contextlib.contextmanager
def receiving(*, tls: bool = False) -> Iterator[Receiver]:
    """Serve while the block runs; what hangs is let go at the end."""
    receiver = Receiver(tls=tls)
    thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.leaving.set()
        receiver.gate.set()
        receiver.shutdown()
        receiver.server_close()
        thread.join()
