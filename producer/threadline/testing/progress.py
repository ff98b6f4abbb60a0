"""Following in memory: every event once, in order, live; a test that would wait for ever is told what it waits for."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from threadline.calls.backends import Backends
from threadline.calls.progress import Progress
from threadline.contract.events import Event, EventId
from threadline.contract.job import check_id, check_thread_id, check_user_id
from threadline.contract.states import State
from threadline.errors import InvalidJob, JobNotFound, ThreadOwnedByAnother
from threadline.log.position import Position
from threadline.testing.stage import Stage

__all__ = ["MemoryProgress"]


class MemoryProgress(Progress):
    """The streams of a Stage. `patience` is the seconds for which a reader waits for something to happen."""

    def __init__(self, backends: Backends, stage: Stage, patience: float) -> None:
        super().__init__(backends)
        self._stage = stage
        self._patience = patience

    async def events(self, job_id: str, user_id: str | None, after: str | None) -> AsyncGenerator[Event, None]:
        """The job's log; see `Job.events`. Raises AssertionError if nothing happens for `patience` seconds."""
        job = self._stage.job(check_id("job id", job_id))
        if user_id is not None and job.user_id != user_id:
            raise ThreadOwnedByAnother(f"job {job_id} belongs to another user")
        position = Position(job_id, None if after is None else _position(after, after))
        while True:
            for event in self._behind(job_id, position):
                yield event
            log = self._stage.logs[job_id]
            if log and log[-1].terminal and position.seen(log[-1]):
                return
            if not await self._stage.changed(self._patience):
                raise AssertionError(self._nothing_happens(job_id))

    async def thread_events(
        self, thread_id: str, user_id: str | None, after: str | None
    ) -> AsyncGenerator[Event, None]:
        """The logs of a thread's jobs; see `Client.thread_events`."""
        told = self._stage.told[self._checked(thread_id, user_id)]
        index, positions = self._start(thread_id, after)
        while True:
            if index < len(told):
                job_id, upto = self._stretch(told, index)
                for event in self._behind(job_id, positions.setdefault(job_id, Position(job_id)), upto):
                    yield event
                if index + 1 < len(told) and (upto is not None or self._stage.logs[job_id][-1].terminal):
                    index += 1
                    continue
            if not await self._stage.changed(self._patience):
                raise AssertionError(f"nothing has happened on thread {thread_id} for {self._patience:g} s")

    def _stretch(self, told: list[tuple[str, int]], index: int) -> tuple[str, int | None]:
        """A stretch's job, and its last epoch if the job went on, or will, in another one."""
        job = self._stage.job(told[index][0])
        following = next((first for other, first in told[index + 1 :] if other == job.job_id), None)
        if following is None and job.state is State.QUEUED and job.transition == "retry":
            following = job.epoch
        return job.job_id, None if following is None else following - 1

    def _behind(self, job_id: str, position: Position, upto: int | None = None) -> list[Event]:
        """What the log has behind a position, and a gap where that is not the next; moves the position."""
        found: list[Event] = []
        for event in self._stage.logs[job_id]:
            if position.seen(event):
                continue
            if upto is not None and event.position is not None and event.position.epoch > upto:
                break
            if not position.follows(event):
                found.append(position.gap(event))
            position.advance(event)
            found.append(event)
        return found

    def _checked(self, thread_id: str, user_id: str | None) -> str:
        owner = self._stage.owners.get(check_thread_id(thread_id))
        if user_id is not None and owner not in {None, check_user_id(user_id)}:
            raise ThreadOwnedByAnother(f"thread {thread_id} belongs to another user")
        return thread_id

    def _start(self, thread_id: str, after: str | None) -> tuple[int, dict[str, Position]]:
        """The stretch to begin in, and how far its job was told."""
        if after is None:
            return 0, {}
        job_id, slash, event_id = after.rpartition("/")
        if not slash:
            raise InvalidJob(f"after={after!r}: a thread's position is JOB/ID, for example 0b5c8f/2-17")
        check_id("job id", job_id)
        last = _position(event_id, after)
        if self._stage.job(job_id).thread_id != thread_id:
            raise JobNotFound(f"job {job_id} is not one of thread {thread_id}")
        told = self._stage.told[thread_id]
        own = [index for index, (other, first) in enumerate(told) if other == job_id and first <= last.epoch]
        index = own[-1] if own else 0
        before = dict(self._stretch(told, earlier) for earlier in range(index))
        ends = {job: EventId(self._stage.job(job).epoch if upto is None else upto, 1) for job, upto in before.items()}
        return index, {job: Position(job, end) for job, end in {**ends, job_id: last}.items()}

    def _nothing_happens(self, job_id: str) -> str:
        job = self._stage.job(job_id)
        why = f"job {job_id} of agent {job.agent!r} is {job.state} and nothing has happened for {self._patience:g} s: "
        if job.state is State.RUNNING:
            return why + "end it with finish(job, …), or give its script a result or raises="
        if not self._stage.has_script(job):
            return why + f"give its agent a script({job.agent!r}, result=…), or move it with start(job), finish(job, …)"
        return why + "it is not due, or another job of its thread stands before it; play(job) runs it all the same"


def _position(text: str, after: str) -> EventId:
    try:
        return EventId.parse(text)
    except ValueError as error:
        raise InvalidJob(f"after={after!r}: {error}") from error
