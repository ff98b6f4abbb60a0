"""As much of LangSmith as takes runs, on 127.0.0.1; or one that takes requests and never answers."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["LangSmith", "langsmith"]

#: What its `/info` says: plain JSON will do.
_INFO = {
    "version": "0.0.0",
    "batch_ingest_config": {
        "use_multipart_endpoint": False,
        "size_limit": 100,
        "size_limit_bytes": 20_971_520,
        "scale_up_nthreads_limit": 16,
        "scale_up_qsize_trigger": 1000,
        "scale_down_nempty_trigger": 4,
    },
}


class LangSmith(ThreadingHTTPServer):
    """`env` switches it on in a worker; `runs` has what came, by id, later news over earlier ones."""

    daemon_threads = True

    def __init__(self, *, hang: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hang = hang
        self.leaving = threading.Event()
        #: While it is clear, nothing is answered, so that nothing is sent.
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Event()
        self.runs: dict[str, dict[str, Any]] = {}
        self._news = threading.Condition()

    @property
    def env(self) -> dict[str, str]:
        endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        return {"LANGSMITH_TRACING": "true", "LANGSMITH_ENDPOINT": endpoint, "LANGSMITH_API_KEY": "x"}

    def until(self, look: Callable[[dict[str, dict[str, Any]]], object], timeout: float = 20) -> dict[str, Any]:
        """Wait until what has arrived satisfies `look`."""
        deadline = time.monotonic() + timeout
        with self._news:
            while not look(self.runs):
                assert self._news.wait(deadline - time.monotonic()), [run.get("name") for run in self.runs.values()]
            return dict(self.runs)

    def take(self, runs: list[dict[str, Any]]) -> None:
        with self._news:
            for run in runs:
                told = {name: value for name, value in run.items() if value is not None}
                self.runs[run["id"]] = {**self.runs.get(run["id"], {}), **told}
            self._news.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Workers leave whenever they like."""


class _Handler(BaseHTTPRequestHandler):
    server: LangSmith
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(_INFO)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.set()
        if self.path == "/runs/batch" and not self.server.hang:
            batch = json.loads(body)
            self.server.take([*batch.get("post", []), *batch.get("patch", [])])
        self._answer({})

    def _answer(self, said: dict[str, Any]) -> None:
        self.server.open.wait(60)
        if self.server.hang:
            self.server.leaving.wait(60)
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test's output to itself."""


@contextlib.contextmanager
def langsmith(*, hang: bool = False) -> Iterator[LangSmith]:
    """Serve while the block runs."""
    server = LangSmith(hang=hang)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.leaving.set()
        server.open.set()
        server.shutdown()
        server.server_close()
        thread.join()
