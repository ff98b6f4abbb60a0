"""A thread's order when an ended job goes on after a later one was told: one position still says what was told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from support.ledger import Bench, bench_on, cloned, emptied
from support.logs import Reader
from support.threads import Stage, stage_on, told
from threadline.contract.states import State
from threadline.ledger.sql import Queries, migrations
from threadline_worker.embedded import ServerUrls


@pytest.fixture(scope="module")
def shared(servers: ServerUrls, template: str) -> Iterator[str]:
    with cloned(servers, template) as url:
        yield url


@pytest.fixture
async def bench(shared: str) -> AsyncIterator[Bench]:
    async with bench_on(emptied(shared)) as made:
        yield made


@pytest.fixture
async def stage(bench: Bench, redis_url: str) -> AsyncIterator[Stage]:
    async with stage_on(bench, redis_url) as made:
        yield made


async def caught_up(reader: Reader, expected: list[str]) -> None:
    await reader.got(len(expected))
    assert told(reader) == expected


async def from_everywhere(stage: Stage, live: Reader, whole: list[str]) -> None:
    """Who comes late hears the same as who was there, and from each position the rest follows."""
    assert stage.expected() == whole
    await caught_up(live, whole)
    await caught_up(stage.follow(), whole)
    for n, after in enumerate(whole[:-1], 1):
        await caught_up(stage.follow(after), whole[n:])


def ids(job: str, *events: str) -> list[str]:
    return [f"{job}/{event}" for event in events]


async def test_a_retry_after_a_queued_job_was_cancelled(stage: Stage) -> None:
    live = stage.follow()
    failing = await stage.start(await stage.enqueue())
    waiting = await stage.enqueue()
    await stage.cancel(waiting)
    await stage.end(failing, State.FAILED)
    await live.got(5)
    await stage.retry(failing)
    await stage.start(failing)
    await stage.end(failing)
    whole = [*ids(failing, "0-1", "1-1", "2-1"), *ids(waiting, "0-1", "1-1"), *ids(failing, "3-1", "4-1", "5-1")]
    await from_everywhere(stage, live, whole)


async def test_a_cancelled_job_is_retried_while_another_runs(stage: Stage) -> None:
    live = stage.follow()
    running, second, third = await stage.start(await stage.enqueue()), await stage.enqueue(), await stage.enqueue()
    await stage.cancel(third)
    await live.got(2)
    early = stage.follow()
    await early.got(2)
    await stage.retry(third)
    await stage.end(running)
    await stage.start(second)
    await stage.step(second)
    await stage.end(second)
    await stage.start(third)
    await stage.end(third)
    whole = [
        *ids(running, "0-1", "1-1", "2-1"),
        *ids(third, "0-1", "1-1"),
        *ids(second, "0-1", "1-1", "1-2", "2-1"),
        *ids(third, "2-1", "3-1", "4-1"),
    ]
    await caught_up(early, whole)
    await from_everywhere(stage, live, whole)


async def test_a_question_is_cancelled_after_a_queued_job_was(stage: Stage) -> None:
    live = stage.follow()
    asking = await stage.start(await stage.enqueue())
    await stage.end(asking, State.INTERRUPTED)
    waiting = await stage.enqueue()
    await stage.cancel(waiting)
    await live.got(5)
    await stage.cancel(asking)
    whole = [*ids(asking, "0-1", "1-1", "2-1"), *ids(waiting, "0-1", "1-1"), *ids(asking, "3-1")]
    await from_everywhere(stage, live, whole)


async def test_a_retry_after_an_earlier_job_became_due(stage: Stage) -> None:
    live = stage.follow()
    later = await stage.enqueue(run_at=datetime.now(UTC) + timedelta(hours=1))
    failing = await stage.whole(1, State.FAILED)
    await live.got(4)
    await stage.bench.set(later, "run_at = now()")
    await stage.start(later)
    await stage.end(later)
    await live.got(7)
    await stage.retry(failing)
    await stage.start(failing)
    await stage.end(failing)
    whole = [
        *ids(failing, "0-1", "1-1", "1-2", "2-1"),
        *ids(later, "0-1", "1-1", "2-1"),
        *ids(failing, "3-1", "4-1", "5-1"),
    ]
    await from_everywhere(stage, live, whole)


async def test_a_log_that_was_lost_holds_nobody_up(stage: Stage) -> None:
    failing = await stage.whole(1, State.FAILED)
    waiting = await stage.enqueue()
    await stage.cancel(waiting)
    await stage.retry(failing)
    await stage.redis.flushdb()
    reader = stage.follow()
    await reader.got(2)
    assert told(reader) == ids(waiting, "gap", "1-1")  # of what is over only the log could tell
    await stage.start(failing)
    await stage.end(failing)
    await reader.got(6)
    assert told(reader)[2:4] == [f"{failing}/0-1", f"{failing}/gap"]
    assert told(reader)[-1] == f"{failing}/5-1"


async def test_jobs_from_before_the_table_are_told_in_their_order(stage: Stage) -> None:
    await stage.whole()
    await stage.cancel(await stage.enqueue())
    running = await stage.start(await stage.enqueue())
    waiting = await stage.enqueue()
    await stage.bench.sql("DROP FUNCTION threadline.begin_stretch CASCADE")
    await stage.bench.sql("DROP TABLE threadline.stretches")
    [text] = [text for _, name, text in migrations() if "stretches" in name]
    async with stage.bench.ledger.database.connection() as connection:
        await connection.execute(Queries("threadline").fill(text), prepare=False)
    reader = stage.follow()
    await caught_up(reader, stage.expected())
    await stage.end(running)
    await stage.end(await stage.start(waiting))
    await caught_up(reader, stage.expected())
