"""Blocking calls into async code: one event loop in a daemon thread, begun by the first call, gone after `close()`.

The loop belongs to one process: after a fork the child begins one of its own and leaves what it inherited untouched,
because the sockets and the selector in there are still the parent's.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import queue
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Generator
from concurrent.futures import CancelledError, Future
from contextlib import aclosing, suppress
from typing import Any, Final, Generic, TypeVar

from threadline.errors import BackendUnavailable

__all__ = ["Portal"]

R = TypeVar("R")
T = TypeVar("T")

#: Items that an iteration fetches ahead of its reader; behind that the source waits.
_AHEAD: Final = 64
#: Seconds that `close()`, and the end of an iteration, give what is under way to let go of its connections.
_CLOSE_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 1.0
#: Between two attempts to cancel what does not end.
_AGAIN_SECONDS: Final = 0.2


class Portal(Generic[R]):
    """Holds a resource in an event loop of its own and lets any thread call it.

    `make` makes the resource inside the loop (once a process), `close_resource` closes it there. Calls of a closed
    portal raise BackendUnavailable; so do those that wait while another thread closes it.
    """

    def __init__(self, make: Callable[[], R], close_resource: Callable[[R], Awaitable[None]]) -> None:
        self._make = make
        self._close_resource = close_resource
        self._closed = False
        #: By process id: a lock that another thread held at the fork would never be free again in the child.
        self._lives: dict[int, _Life[R]] = {}
        # A client that nobody closed lets go of its connections when it is collected, at the latest at exit.
        weakref.finalize(self, _forget, self._lives).atexit = False

    def call(
        self, ask: Callable[[R], Coroutine[Any, Any, T]], *, meanwhile: Callable[[Future[T]], None] | None = None
    ) -> T:
        """Run `ask(resource)` in the loop and wait for it; Ctrl-C cancels it and is raised at once.

        `meanwhile` is what the calling thread does before it waits; what it raises ends the call, too.
        """
        life, call = self._life(), _Call()
        try:
            future = life.submit(ask, call)
            if meanwhile is not None:
                meanwhile(future)
            return future.result()
        except CancelledError:
            raise BackendUnavailable("the client was closed during the call") from None
        finally:
            call.give_up()  # a no-op unless waiting was interrupted; the loop's thread cleans up

    def iterate(self, ask: Callable[[R], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
        """The items of `ask(resource)`, which begins at the first `next()` and ends with this generator."""
        pump = _Pump[R, T](self._life(), ask)
        try:
            pump.start()
            while (item := pump.next()) is not None:
                yield item[0]
        finally:
            pump.stop()

    def close(self) -> None:
        """Cancel what is under way, close the resource, end the loop and its thread; safe to call twice."""
        self._closed = True
        if (life := self._lives.get(os.getpid())) is not None:
            life.end()
            life.raise_failure()

    def _life(self) -> _Life[R]:
        pid = os.getpid()
        life = self._lives.get(pid) or self._lives.setdefault(pid, _Life(self._make, self._close_resource))
        if self._closed:
            raise BackendUnavailable("the client is closed: make a new one")
        return life


class _Call:
    """One call's task. It can be given up at any moment: Ctrl-C may come before anybody knows that it has begun."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self._given_up = False

    def begin(self) -> asyncio.Task[Any]:
        """In the task. Raises asyncio.CancelledError if nobody waits for it any more."""
        self.task = asyncio.current_task()
        assert self.task is not None  # noqa: S101 - a coroutine that runs is in a task
        if self._given_up:
            raise asyncio.CancelledError
        return self.task

    def give_up(self) -> None:
        """Cancel it, from any thread."""
        self._given_up = True
        if self.task is not None and not self.task.done():
            with suppress(RuntimeError):  # the loop is closed, and the task with it
                self.task.get_loop().call_soon_threadsafe(self.task.cancel)


class _Life(Generic[R]):
    """A portal's loop, thread and resource in one process."""

    def __init__(self, make: Callable[[], R], close_resource: Callable[[R], Awaitable[None]]) -> None:
        self.pid = os.getpid()
        self._make = make
        self._close_resource = close_resource
        # Re-entrant: the collector may end an abandoned iteration in a thread that is just beginning a call.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, R]] = Future()
        self._over: Future[None] = Future()
        self._ended = False
        self._calls: set[asyncio.Task[Any]] = set()

    def submit(self, ask: Callable[[R], Coroutine[Any, Any, T]], call: _Call) -> Future[T]:
        """Begin a call. Raises BackendUnavailable if the portal was closed."""
        if self.inside:
            raise RuntimeError("a blocking call inside the client's own event loop would wait for itself")
        with self._lock:
            if self._ended:
                raise BackendUnavailable("the client is closed: make a new one")
            if self._thread is None:
                self._begin()
            loop, _, resource = self._ready.result()
            return asyncio.run_coroutine_threadsafe(self._called(ask, resource, call), loop)

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._run, name="threadline-client", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no more threads: nobody may wait for this one, and a later call tries again
            self._thread = None
            raise
        _living.add(self)

    def stop(self) -> None:
        """Have the loop end, and wait for nothing: the collector may call from any thread, whatever locks it holds."""
        with self._lock:
            self._ended = True
            if self._thread is None or self._ready.exception() is not None:
                return
            loop, stop, _ = self._ready.result()
            with suppress(RuntimeError):  # it is closed already
                loop.call_soon_threadsafe(stop.set)

    def end(self) -> None:
        """Have the loop end; returns when its thread has ended."""
        self.stop()
        if self._thread is not None and not self.inside:
            self._thread.join()

    def raise_failure(self) -> None:
        """Raise what making or closing the resource raised."""
        if self._over.done():
            self._over.result()

    @property
    def inside(self) -> bool:
        """Whether the calling thread is the loop's own."""
        return self._thread is not None and threading.current_thread() is self._thread

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._live())
        except BaseException as error:  # noqa: BLE001 - the thread's boundary: whoever waits for it is told
            for future in (self._ready, self._over):
                if not future.done():
                    future.set_exception(error)
        else:
            self._over.set_result(None)
        _living.discard(self)

    async def _live(self) -> None:
        stop = asyncio.Event()
        resource = self._make()
        self._ready.set_result((asyncio.get_running_loop(), stop, resource))
        await stop.wait()
        for call in self._calls:
            call.cancel()
        await _end(self._calls, _CLOSE_SECONDS)
        with suppress(TimeoutError):  # a server that does not even take a good-bye: the connections go with the loop
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._close_resource(resource)

    async def _called(self, ask: Callable[[R], Coroutine[Any, Any, T]], resource: R, call: _Call) -> T:
        """Know the task while it runs: the resource's own tasks are not to be cancelled, its `close` ends them."""
        task = call.begin()
        self._calls.add(task)
        try:
            return await ask(resource)
        finally:
            self._calls.discard(task)


class _Pump(Generic[R, T]):
    """One iteration: a single task drives the source from begin to end, a few items ahead of the reader."""

    def __init__(self, life: _Life[R], ask: Callable[[R], AsyncGenerator[T, None]]) -> None:
        self._life = life
        self._ask = ask
        self._items: queue.SimpleQueue[tuple[T] | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(_AHEAD)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._call = _Call()
        self._future: Future[None] = Future()

    def start(self) -> None:
        """Begin to fetch. Raises BackendUnavailable if the portal was closed."""
        self._future = self._life.submit(self._drive, self._call)
        # Whatever ends it (the source, an error, close) the reader hears of behind the last item.
        self._future.add_done_callback(lambda _: self._items.put(None))

    def next(self) -> tuple[T] | None:
        """Wait for the next item; None at the end. Raises what the source raised."""
        if self._life.pid != os.getpid():
            raise RuntimeError("this iteration began before a fork: begin a new one, with after= the last event's id")
        item = self._items.get()
        if item is not None:
            assert self._loop is not None  # noqa: S101 - whoever put the item has set it
            with suppress(RuntimeError):  # the loop is closed: what it had fetched is still told
                self._loop.call_soon_threadsafe(self._room.release)
            return item
        try:
            self._future.result()
        except CancelledError:
            raise BackendUnavailable("the client was closed during the iteration") from None
        return None

    def stop(self) -> None:
        """Let go of the source. Returns when it has let go of its connections, or after a second."""
        if self._life.pid != os.getpid():
            return
        self._call.give_up()
        if self._call.task is None or self._call.task.done() or self._life.inside:
            return
        # The client may be being closed, which does the same; or the collector called from under a lock of the loop's.
        with suppress(BackendUnavailable, CancelledError, TimeoutError):
            self._life.submit(self._gone, _Call()).result(_STOP_SECONDS)

    async def _drive(self, resource: R) -> None:
        self._loop = asyncio.get_running_loop()
        async with aclosing(self._ask(resource)) as source:
            async for item in source:
                self._items.put((item,))
                await self._room.acquire()

    async def _gone(self, _resource: R) -> None:
        if self._call.task is not None:
            await _end({self._call.task}, _STOP_SECONDS)


async def _end(tasks: Collection[asyncio.Task[Any]], limit: float) -> None:
    """Wait so many seconds until tasks that were cancelled are over; those that did not hear of it are told again.

    Python 3.11's wait_for, which drivers use, loses a cancellation that comes with an answer. But not at once: a second
    one would cut off the good-bye to the server.
    """
    until = asyncio.get_running_loop().time() + limit
    while tasks and (left := until - asyncio.get_running_loop().time()) > 0:
        _, tasks = await asyncio.wait(tasks, timeout=min(left, _AGAIN_SECONDS))
        for task in tasks:
            task.cancel()


#: What runs in this process (and, after a fork, what ran in its parent).
_living: set[_Life[Any]] = set()


def _forget(lives: dict[int, _Life[Any]]) -> None:
    if (life := lives.get(os.getpid())) is not None:
        life.stop()


@atexit.register
def _end_all() -> None:
    for life in list(_living):  # a copy: the threads of others may be ending meanwhile
        if life.pid == os.getpid():
            life.end()
