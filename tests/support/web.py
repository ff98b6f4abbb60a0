"""A small web server on 127.0.0.1 that keeps what it was asked; answers come from a table of paths."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """What a path answers; a body given as several pieces is sent without a length."""

    body: bytes | list[bytes] = b""
    kind: str = "text/html; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    release: threading.Event | None = None  # the answer waits for it


class WebServer(ThreadingHTTPServer):
    """See the module; ``seen`` holds (path, Host header) of each request."""

    daemon_threads = True

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = dict(answers)
        self.seen: list[tuple[str, str]] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    server: WebServer

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Host"]))
        answer = self.server.answers.get(self.path.partition("?")[0], Answer(status=404))
        if answer.release:
            answer.release.wait(30)
        pieces = answer.body if isinstance(answer.body, list) else [answer.body]
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        if not isinstance(answer.body, list):
            self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client may have had enough
            for piece in pieces:
                self.wfile.write(piece)

    def log_message(self, *_: object) -> None:
        """Keep the test's output to itself."""


@contextlib.contextmanager
def serving(answers: Mapping[str, Answer]) -> Iterator[WebServer]:
    """Serve while the block runs."""
    server = WebServer(answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        for answer in server.answers.values():
            if answer.release:
                answer.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
