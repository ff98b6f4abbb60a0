"""The portal without servers: how far it reads ahead, in which order it closes, and what it says of misuse."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from support.waiting import soon
from threadline import BackendUnavailable
from threadline.portal import Portal


class Source:
    """A resource that notes what happens to it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.at = 0

    async def count(self) -> AsyncGenerator[int, None]:
        try:
            while True:
                self.at += 1
                yield self.at
        finally:
            self.said.append("left")

    async def hang(self) -> None:
        self.said.append("hangs")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.said.append("let go")

    async def fail(self) -> None:
        raise ZeroDivisionError

    async def aclose(self) -> None:
        self.said.append("closed")


def portal_of(source: Source) -> Portal[Source]:
    return Portal(lambda: source, Source.aclose)


def test_a_source_is_read_a_little_ahead_and_no_further() -> None:
    source = Source()
    portal = portal_of(source)
    stream = portal.iterate(Source.count)
    assert next(stream) == 1
    soon(lambda: source.at >= 64)
    portal.call(lambda _: asyncio.sleep(0.01))  # a turn of the loop in which it could go on
    assert source.at <= 66
    assert [next(stream) for _ in range(500)] == list(range(2, 502))
    stream.close()
    assert source.said == ["left"]
    portal.close()


def test_the_resource_is_closed_when_no_call_uses_it_any_more() -> None:
    source = Source()
    portal = portal_of(source)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(portal.call, Source.hang)
        soon(lambda: bool(source.said))
        portal.close()
        with pytest.raises(BackendUnavailable, match="closed during the call"):
            waiting.result(timeout=20)
    assert source.said == ["hangs", "let go", "closed"]


def test_nothing_runs_before_the_first_call() -> None:
    before = threading.enumerate()
    source = Source()
    portal = portal_of(source)
    stream = portal.iterate(Source.count)
    assert threading.enumerate() == before
    portal.close()
    assert source.said == []
    with pytest.raises(BackendUnavailable):
        next(stream)


def test_errors_come_out_as_they_are() -> None:
    portal = portal_of(Source())
    with pytest.raises(ZeroDivisionError):
        portal.call(Source.fail)

    async def failing(_: Source) -> AsyncGenerator[int, None]:
        yield 1
        raise ZeroDivisionError

    stream = portal.iterate(failing)
    assert next(stream) == 1
    with pytest.raises(ZeroDivisionError):
        next(stream)
    portal.close()


def test_a_call_inside_the_loop_is_refused_instead_of_waiting_for_itself() -> None:
    portal = portal_of(Source())

    async def ask(_: Source) -> None:
        portal.call(Source.hang)

    with pytest.raises(RuntimeError, match="would wait for itself"):
        portal.call(ask)
    portal.close()


def test_a_resource_that_cannot_be_made_or_closed_is_told() -> None:
    def refuse() -> Source:
        raise ZeroDivisionError

    unmade = Portal(refuse, Source.aclose)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            unmade.call(Source.hang)
    with pytest.raises(ZeroDivisionError):
        unmade.close()

    unclosed = Portal(Source, Source.fail)
    unclosed.call(lambda _: asyncio.sleep(0))
    with pytest.raises(ZeroDivisionError):
        unclosed.close()
    assert [thread.name for thread in threading.enumerate() if thread.name == "threadline-client"] == []


def test_what_was_fetched_is_told_after_a_close() -> None:
    source = Source()
    portal = portal_of(source)
    stream = portal.iterate(Source.count)
    assert next(stream) == 1
    soon(lambda: source.at >= 64)
    portal.close()
    told: list[int] = []
    with pytest.raises(BackendUnavailable, match="closed during the iteration"):
        told.extend(stream)
    assert told == list(range(2, 2 + len(told)))
    assert len(told) >= 60


def test_an_abandoned_iteration_may_be_collected_while_a_call_begins() -> None:
    source = Source()
    portal = portal_of(source)
    stream = portal.iterate(Source.count)
    next(stream)

    def ask(resource: Source) -> Coroutine[None, None, None]:
        return resource.fail()

    life = portal._life()
    with life._lock:  # as in a thread that is beginning a call
        stream.close()
    assert source.said == ["left"]
    with pytest.raises(ZeroDivisionError):
        portal.call(ask)
    portal.close()


def test_a_thread_that_could_not_begin_is_waited_for_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    portal = portal_of(Source())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            portal.call(Source.hang)
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(ZeroDivisionError):
            pool.submit(portal.call, Source.fail).result(timeout=20)
        pool.submit(portal.close).result(timeout=20)


class Deaf(Source):
    """It loses its first cancellation, as Python 3.11's wait_for may."""

    async def wait(self) -> None:
        self.said.append("waits")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await self.hang()

    async def stream(self) -> AsyncGenerator[int, None]:
        yield 1
        await self.wait()


def test_a_cancellation_that_was_lost_is_repeated() -> None:
    source = Deaf()
    portal = Portal(lambda: source, Source.aclose)
    stream = portal.iterate(Deaf.stream)
    assert next(stream) == 1
    soon(lambda: source.said == ["waits"])
    stream.close()
    assert source.said == ["waits", "hangs", "let go"]
    source.said.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(portal.call, Deaf.wait)
        soon(lambda: source.said == ["waits"])
        portal.close()
        with pytest.raises(BackendUnavailable, match="closed during the call"):
            waiting.result(timeout=20)
    assert source.said == ["waits", "hangs", "let go", "closed"]


@pytest.mark.parametrize("late", [False, True])
def test_ctrl_c_before_anybody_knows_of_the_call_leaves_nothing(monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    source = Source()
    portal = portal_of(source)
    portal.call(lambda _: asyncio.sleep(0))
    begin = asyncio.run_coroutine_threadsafe

    def interrupted(coroutine: Any, loop: asyncio.AbstractEventLoop) -> Any:
        begin(coroutine, loop)
        if late:  # it is under way by then
            soon(lambda: bool(source.said))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            portal.call(Source.hang)
    portal.call(lambda _: asyncio.sleep(0.01))  # it would have begun
    soon(lambda: not portal._life()._calls)
    # Where nothing waits for it, the loop's thread may have been quick all the same.
    assert source.said in ([["hangs", "let go"]] if late else [[], ["hangs", "let go"]])
    source.said.clear()

    async def stream(resource: Source) -> AsyncGenerator[int, None]:
        yield 1
        await resource.hang()

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(portal.iterate(stream))
    portal.call(lambda _: asyncio.sleep(0.01))  # it would have begun
    soon(lambda: not portal._life()._calls)
    # Where nothing waits for it, the loop's thread may have been quick all the same.
    assert source.said in ([["hangs", "let go"]] if late else [[], ["hangs", "let go"]])
    portal.close()
