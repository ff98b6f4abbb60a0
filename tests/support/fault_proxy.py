"""A TCP proxy that misbehaves on order: silence, resets, refusals, latency, and answers that are lost.

Lives in the caller's event loop. `mode`:

- `pass`: as if it were not there
- `blackhole`: connections stay, nothing passes, new ones are accepted and stay silent
- `mute`: what clients say arrives, answers do not
- `latency:0.2`: so many seconds for each piece, in both directions
- `reset`: every connection is reset at once, new ones too
- `refuse`: as `reset`, and nobody listens on the port

`lose_answer(*marks)`: the next request that contains all marks reaches the server, which answers; then the connection
is reset without a word. A COMMIT whose answer is lost has happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Self
from urllib.parse import urlsplit

__all__ = ["FaultProxy"]

_LINGER_NOTHING = struct.pack("ii", 1, 0)
_PIECE = 65_536


class FaultProxy:
    """`async with FaultProxy(url) as proxy`: `proxy.url` is `url` through the proxy."""

    def __init__(self, upstream_url: str) -> None:
        parts = urlsplit(upstream_url)
        assert parts.hostname, parts.port
        self._upstream = (parts.hostname, int(parts.port or 0))
        self._parts = parts
        self.port = 0
        self.mode = "pass"
        self.answers_lost = 0
        self._marks: tuple[bytes, ...] | None = None
        self._changed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        login = self._parts.netloc.rpartition("@")[0]
        return self._parts._replace(netloc=f"{login}@127.0.0.1:{self.port}").geturl()

    @property
    def connections(self) -> int:
        """Clients' connections that are open now."""
        return len(self._tasks)

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._deafen()
        self._reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def set(self, mode: str) -> None:
        """Change the mode, for connections that exist, too."""
        self.mode = mode
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if mode == "refuse":
            await self._deafen()
        elif self._server is None:
            await self._listen()
        if mode in {"reset", "refuse"}:
            self._reset()

    async def reset(self) -> None:
        """RST every connection once."""
        self._reset()

    def lose_answer(self, *marks: bytes) -> None:
        """Once; without marks any request will do."""
        self._marks = marks

    def forget_answer(self) -> None:
        """No longer wait for that request."""
        self._marks = None

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _deafen(self) -> None:
        if self._server is not None:
            # Not wait_closed(): from Python 3.12 it waits for the connections, too.
            self._server.close()
            self._server = None

    def _reset(self) -> None:
        for writer in list(self._writers):
            _abort(writer)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            if self.mode in {"reset", "refuse"}:
                return
            await self._while_in("blackhole")
            answers, upstream = await asyncio.open_connection(*self._upstream)
            self._writers.add(upstream)
            await self._relay(_Link(reader, writer, answers, upstream))
        except (OSError, asyncio.CancelledError):
            pass  # reset by either side, or the proxy ends: both ends are aborted below
        finally:
            for end in (writer, upstream):
                if end is not None:
                    self._writers.discard(end)
                    _abort(end)
            self._tasks.discard(task)

    async def _relay(self, link: _Link) -> None:
        ways = {asyncio.create_task(self._requests(link)), asyncio.create_task(self._answers(link))}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _requests(self, link: _Link) -> None:
        while piece := await link.requests.read(_PIECE):
            await self._hinder("blackhole")
            if self._marks is not None and all(mark in piece for mark in self._marks):
                self._marks, link.doomed = None, True
            link.server.write(piece)
            await link.server.drain()

    async def _answers(self, link: _Link) -> None:
        while piece := await link.answers.read(_PIECE):
            if link.doomed:
                self.answers_lost += 1
                return
            await self._hinder("blackhole", "mute")
            link.client.write(piece)
            await link.client.drain()

    async def _hinder(self, *modes: str) -> None:
        await self._while_in(*modes)
        if self.mode.startswith("latency:"):
            await asyncio.sleep(float(self.mode.removeprefix("latency:")))

    async def _while_in(self, *modes: str) -> None:
        while self.mode in modes:
            await self._changed.wait()


class _Link:
    """A client's connection and ours to the server; `doomed` means that its next answer is lost."""

    def __init__(
        self,
        requests: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        server: asyncio.StreamWriter,
    ) -> None:
        self.requests, self.client, self.answers, self.server = requests, client, answers, server
        self.doomed = False


def _abort(writer: asyncio.StreamWriter) -> None:
    """RST, not FIN: nobody is told anything."""
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)
    writer.transport.abort()
