"""A server on 127.0.0.1 that speaks OpenAI's chat API: scripted, streaming, with tool calls; it keeps each request.

    with OpenAIServer(scripted_research) as server:
        os.environ.update(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="any")
        server.fail(429, retry_after=1)            # the next request, or times=n
        ...
        assert server.requests[0]["model"] == "m"

A script is a function from the request's body to a ``Reply``, or a list of replies given in turn. ``Reply.hold`` is an
Event that the reply waits for, and ``server.wait_for_requests(n)`` waits until n requests have come in.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

PIECE_CHARS = 12

Body = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What the model says: text, tool calls as (name, arguments), or an HTTP error."""

    text: str = ""
    calls: Sequence[tuple[str, dict[str, Any]]] = ()
    status: int = 200
    retry_after: float | None = None
    hold: threading.Event | None = None


Script = Callable[[Body], Reply]


class OpenAIServer:
    """See the module. ``requests`` are the bodies in order of arrival, ``statuses`` what each was answered with."""

    def __init__(self, script: Script | Sequence[Reply]) -> None:
        self._script = script if callable(script) else _in_turn(script)
        self._failures: list[Reply] = []
        self._changed = threading.Condition()
        self.requests: list[Body] = []
        self.statuses: list[int] = []
        self._stopping = threading.Event()
        self._http = _Server(self)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def base_url(self) -> str:
        """What OPENAI_BASE_URL is to be."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def fail(self, status: int, *, retry_after: float | None = None, times: int = 1) -> None:
        """Answer the next requests with an HTTP error."""
        self._failures += [Reply(status=status, retry_after=retry_after)] * times

    def wait_for_requests(self, count: int, seconds: float = 30) -> None:
        """Wait until so many requests have come in; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.requests) >= count, seconds):
                raise TimeoutError(f"{len(self.requests)} of {count} requests after {seconds} s")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def reply_to(self, body: Body) -> Reply:
        """Record a request and say what it is answered with."""
        with self._changed:
            reply = self._failures.pop(0) if self._failures else self._script(body)
            self.requests.append(body)
            self.statuses.append(reply.status)
            self._changed.notify_all()
        while reply.hold and not reply.hold.wait(0.02) and not self._stopping.is_set():
            pass
        return reply


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a held reply must not keep the test

    def __init__(self, owner: OpenAIServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner = owner


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self._json(404, {"error": {"message": f"no such path: {self.path}"}}, {})
            return
        reply = self.server.owner.reply_to(body)
        try:
            self._answer(body, reply)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client was killed in the middle: that is what some tests do

    def _answer(self, body: Body, reply: Reply) -> None:
        if reply.status != 200:
            headers = {} if reply.retry_after is None else {"Retry-After": f"{reply.retry_after:g}"}
            self._json(reply.status, {"error": {"message": "scripted", "type": "scripted", "code": None}}, headers)
        elif body.get("stream"):
            self._stream(body, reply)
        else:
            self._json(200, _completion(body, reply), {})

    def _json(self, status: int, answer: Any, headers: dict[str, str]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, body: Body, reply: Reply) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for chunk in _chunks(body, reply):
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Keep the test's output to itself."""


def _in_turn(replies: Sequence[Reply]) -> Script:
    left = list(replies)
    return lambda _: left.pop(0) if left else Reply(status=500)


def _call_id(body: Body, index: int) -> str:
    return f"call_{len(body['messages'])}_{index}_{abs(hash(json.dumps(body['messages']))) % 10**8}"


def _usage(body: Body, reply: Reply) -> dict[str, int]:
    asked = sum(len(str(message.get("content") or "").split()) for message in body["messages"])
    said = len(reply.text.split()) + 5 * len(reply.calls)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def _named(body: Body, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{len(body['messages'])}", "object": kind, "created": 1, "model": body["model"]}


def _completion(body: Body, reply: Reply) -> Body:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.calls:
        message["tool_calls"] = [
            {"id": _call_id(body, n), "type": "function", "function": {"name": name, "arguments": json.dumps(args)}}
            for n, (name, args) in enumerate(reply.calls)
        ]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if reply.calls else "stop"}
    return {**_named(body, "chat.completion"), "choices": [choice], "usage": _usage(body, reply)}


def _chunks(body: Body, reply: Reply) -> Iterator[Body]:
    named = _named(body, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> Body:
        return {**named, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield chunk({"role": "assistant", "content": ""})
    for start in range(0, len(reply.text), PIECE_CHARS):
        yield chunk({"content": reply.text[start : start + PIECE_CHARS]})
    for index, (name, args) in enumerate(reply.calls):
        head = {"index": index, "id": _call_id(body, index), "type": "function"}
        yield chunk({"tool_calls": [{**head, "function": {"name": name, "arguments": ""}}]})
        text = json.dumps(args)
        for start in range(0, len(text), PIECE_CHARS):
            piece = {"index": index, "function": {"arguments": text[start : start + PIECE_CHARS]}}
            yield chunk({"tool_calls": [piece]})
    yield chunk({}, "tool_calls" if reply.calls else "stop")
    if (body.get("stream_options") or {}).get("include_usage"):
        yield {**named, "choices": [], "usage": _usage(body, reply)}


def scripted_research(body: Body) -> Reply:
    """Play the research agent's parts in few steps: two researchers, a report with one good and one made-up citation.

    The report quotes the first source that a researcher returned, cites it, and cites ``[S0badc0de]`` besides.
    """
    tools = {tool["function"]["name"] for tool in body.get("tools") or []}
    last = max(place for place, message in enumerate(body["messages"]) if message["role"] == "user")
    question = str(body["messages"][last]["content"])
    results = [str(message["content"]) for message in body["messages"][last:] if message["role"] == "tool"]
    return _leader(question, results) if "task" in tools else _researcher(question, results)


def _leader(question: str, results: list[str]) -> Reply:
    if not results:
        todos = [{"content": "Research", "status": "in_progress"}]
        parts = [{"description": f"{part}: {question}", "subagent_type": "researcher"} for part in ("First", "Second")]
        return Reply(calls=[("write_todos", {"todos": todos}), *(("task", part) for part in parts)])
    if not any("/report.md" in result for result in results):
        found = next(result for result in results if "FOUND" in result).removeprefix("FOUND ")
        report = f"# {question}\n\n{found}\n\nThe moon is made of cheese. [S0badc0de]\n"
        return Reply(calls=[("write_file", {"file_path": "/report.md", "content": report})])
    return Reply(text="The report is written.")


def _researcher(question: str, results: list[str]) -> Reply:
    if not results:
        return Reply(calls=[("search_corpus", {"query": question.partition(": ")[2], "limit": 3})])
    hits = json.loads(results[0])["results"]
    return Reply(text=f"FOUND {hits[0]['snippet']} [{hits[0]['source_id']}]" if hits else "FOUND nothing.")
