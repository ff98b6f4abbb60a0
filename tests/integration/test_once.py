"""F2: what a tool did is kept under its run's fence, and a step that runs again does not do it again."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from support.desk import Desk, desk_on
from support.ledger import cloned, emptied
from threadline.ledger.database import Database
from threadline_worker.checkpoints import CheckpointsAway, Fence, LeaseLost
from threadline_worker.effects import LedgerEffects, effects_of_this_run
from threadline_worker.once import (
    EffectInDoubt,
    EffectNotDone,
    NotInARun,
    OnceError,
    once,
    once_in_memory,
    once_in_transaction,
    once_in_transaction_sync,
    once_sync,
)


@pytest.fixture(scope="module")
def shared(servers, template) -> Iterator[str]:
    with cloned(servers, template) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE public.paid (who text PRIMARY KEY)")
        yield url


@pytest.fixture
async def desk(shared):
    with psycopg.connect(emptied(shared), autocommit=True) as connection:
        connection.execute("DELETE FROM public.paid")
    async with desk_on(shared) as made:
        yield made


@pytest.fixture
async def transactions(shared):
    async with Database(shared, application_name="tools", transaction_timeout=1.0) as made:
        yield made


@contextmanager
def running(desk: Desk, claim, transactions: Database | None = None, **wrong):
    """As in a run of this claim; `wrong` replaces parts of its fence."""
    fence = Fence(claim.job_id, claim.thread_id, claim.epoch, claim.worker_id)._replace(**wrong)
    effects = LedgerEffects(desk.database, transactions or desk.database, desk.queries, fence)
    token = effects_of_this_run.set(effects)
    try:
        yield effects
    finally:
        effects_of_this_run.reset(token)


class Deed:
    """Counts how often it is done, and what else it is told to do."""

    def __init__(self, result=None, error: BaseException | None = None) -> None:
        self.times = 0
        self.result = result
        self.error = error

    async def __call__(self, *_given):
        self.times += 1
        if self.error is not None:
            raise self.error
        return self.result

    def at_once(self):
        self.times += 1
        return self.result


@pytest.mark.parametrize("in_doubt", ["run", "raise"])
async def test_F2_an_effect_is_done_once_and_its_result_comes_back(desk: Desk, in_doubt) -> None:
    claim = await desk.claim("t")
    deed = Deed({"id": 7, "pair": (1, None), "text": "ä\0"})
    with running(desk, claim):
        for _ in range(3):
            assert await once("k", deed, in_doubt=in_doubt) == {"id": 7, "pair": [1, None], "text": "ä\0"}
        assert await once("none", nothing := Deed(None), in_doubt=in_doubt) is None
        assert await once("none", nothing, in_doubt=in_doubt) is None
    assert (deed.times, nothing.times) == (1, 1)


@pytest.mark.parametrize("in_doubt", ["run", "raise"])
async def test_F2_a_sync_tool_in_a_thread_does_it_once_too(desk: Desk, in_doubt) -> None:
    claim = await desk.claim("t")
    deed = Deed([1])
    with running(desk, claim):
        for _ in range(2):
            assert await asyncio.to_thread(once_sync, "k", deed.at_once, in_doubt=in_doubt) == [1]
        with pytest.raises(RuntimeError, match="await once"):
            once_sync("k", deed.at_once, in_doubt=in_doubt)
        for call in (lambda: once("k", deed, in_doubt=in_doubt), lambda: once_in_transaction("k", pay)):
            with pytest.raises(RuntimeError, match="use once_sync"):
                await asyncio.to_thread(lambda call=call: asyncio.run(call()))
    assert deed.times == 1


async def test_F2_effects_belong_to_the_thread_and_go_with_it(desk: Desk) -> None:
    first, other = await desk.claim("t"), await desk.claim("u", "w-b")
    deed = Deed("done")
    with running(desk, first):
        await once("k", deed, in_doubt="run")
    with running(desk, other):
        await once("k", deed, in_doubt="run")
    assert deed.times == 2
    desk.view.rows("UPDATE jobs SET state = 'succeeded' WHERE job_id = %s", first.job_id)
    later = await desk.claim("t")  # a job that answers a question goes on with the same step
    with running(desk, later):
        assert await once("k", deed, in_doubt="raise") == "done"
    assert deed.times == 2
    desk.view.rows("DELETE FROM jobs WHERE thread_id = 't'")
    assert len(desk.view.rows("SELECT 1 FROM effects WHERE thread_id = 't'")) == 1
    desk.view.rows("DELETE FROM threads WHERE thread_id = 't'")
    assert [row["thread_id"] for row in desk.view.rows("SELECT thread_id FROM effects")] == ["u"]


WRONG = [{"epoch": 2}, {"epoch": 0}, {"worker_id": "w-b"}, {"job_id": "another"}, {"thread_id": "u"}]


async def test_F2_a_stale_worker_does_and_records_no_effect(desk: Desk, transactions) -> None:
    claim, _other = await desk.claim("t"), await desk.claim("u", "w-b")
    with running(desk, claim):
        await once("kept", Deed("old"), in_doubt="run")
    before = desk.view.dump("effects", "public.paid")
    for wrong in WRONG:
        deed = Deed()
        with running(desk, claim, transactions, **wrong) as effects:
            for in_doubt in ("run", "raise"):
                with pytest.raises(LeaseLost):
                    await once("k", deed, in_doubt=in_doubt)
            with pytest.raises(LeaseLost):
                await effects.finish("kept", '"new"')
            with pytest.raises(LeaseLost):
                await effects.forget("kept")
            with pytest.raises(LeaseLost):
                await once_in_transaction("k", pay)
            with pytest.raises(LeaseLost):
                await asyncio.to_thread(once_in_transaction_sync, "k", pay_at_once)
        assert deed.times == 0
    assert desk.view.dump("effects", "public.paid") == before


async def test_F2_a_worker_that_lost_its_job_in_mid_effect_records_nothing(desk: Desk, transactions) -> None:
    claim = await desk.claim("t")

    async def robbed():
        await desk.rescue("w-a")
        return "stale"

    async def robbed_in_transaction(connection):
        await pay(connection)
        await desk.rescue("w-b")
        return "stale"

    with running(desk, claim), pytest.raises(LeaseLost):
        await once("k", robbed, in_doubt="run")
    heir = await desk.ledger.claim(claim.job_id, await desk.register("w-b"))
    with running(desk, heir):
        assert await once("k", Deed("fresh"), in_doubt="run") == "fresh"
        with pytest.raises(LeaseLost):
            await once_in_transaction("t", robbed_in_transaction)
    assert [row["key"] for row in desk.view.rows("SELECT key FROM effects")] == ["k"]
    assert desk.view.rows("SELECT 1 FROM public.paid") == []


@pytest.mark.parametrize("end", [ConnectionError("no answer"), asyncio.CancelledError()])
async def test_F2_what_was_begun_and_not_kept_is_in_doubt(desk: Desk, end) -> None:
    claim = await desk.claim("t")
    with running(desk, claim):
        with pytest.raises(type(end)):
            await once("k", Deed(error=end), in_doubt="raise")
        again = Deed("now")
        with pytest.raises(EffectInDoubt, match=r"was begun at .* by worker w-a, and nobody knows") as found:
            await once("k", again, in_doubt="raise")
        assert (found.value.key, found.value.worker_id, again.times) == ("k", "w-a", 0)
        # Somebody has looked: it is done again, or what was found is kept.
        assert await once("k", again, in_doubt="run") == "now"
        assert await once("k", again, in_doubt="raise") == "now"
        assert again.times == 1
        # With "run" there is no mark, so nothing is in doubt.
        with pytest.raises(type(end)):
            await once("r", Deed(error=end), in_doubt="run")
        assert await once("r", again, in_doubt="raise") == "now"


async def test_F2_what_was_surely_not_done_may_be_tried_again(desk: Desk) -> None:
    claim = await desk.claim("t")

    def refused():
        raise EffectNotDone("card declined")

    with running(desk, claim):
        with pytest.raises(EffectNotDone):
            await once("k", refused, in_doubt="raise")
        with pytest.raises(EffectNotDone):
            await asyncio.to_thread(once_sync, "k", refused, in_doubt="raise")
        assert await once("k", Deed(1), in_doubt="raise") == 1


async def pay(connection) -> str:
    await connection.execute("INSERT INTO public.paid VALUES ('bob')")
    return "paid"


def pay_at_once(connection) -> str:
    connection.execute("INSERT INTO public.paid VALUES ('bob')")
    return "paid"


async def test_F2_in_a_transaction_deed_and_record_are_one(desk: Desk, transactions) -> None:
    claim = await desk.claim("t")

    async def fails(connection):
        await pay(connection)
        raise ValueError("after the deed")

    with running(desk, claim, transactions):
        with pytest.raises(ValueError, match="after the deed"):
            await once_in_transaction("k", fails)
        assert desk.view.rows("SELECT 1 FROM public.paid") == []
        assert await once_in_transaction("k", pay) == "paid"
        assert await once_in_transaction("k", pay) == "paid"  # a second INSERT would be refused
        assert await asyncio.to_thread(once_in_transaction_sync, "k", pay_at_once) == "paid"
        # The tool's own error stays its own, and takes the record back as well.
        with pytest.raises(psycopg.errors.UniqueViolation):
            await asyncio.to_thread(once_in_transaction_sync, "other", pay_at_once)
    assert [row["key"] for row in desk.view.rows("SELECT key FROM effects")] == ["k"]


async def test_F2_a_transaction_that_loses_its_connection_is_no_failure_of_the_tool(desk: Desk, transactions) -> None:
    claim = await desk.claim("t")

    async def cut(connection):
        await pay(connection)
        desk.view.rows("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        await connection.execute("SELECT 1")

    with running(desk, claim, transactions):
        with pytest.raises(CheckpointsAway):
            await once_in_transaction("k", cut)
        assert await once_in_transaction("k", pay) == "paid"


async def test_F3_the_server_ends_a_tools_transaction_that_takes_too_long(desk: Desk, transactions) -> None:
    claim = await desk.claim("t")

    async def slow(connection):
        await connection.execute("SELECT pg_sleep(30)")

    def slow_at_once(connection):
        connection.execute("SELECT pg_sleep(30)")

    with running(desk, claim, transactions):
        with pytest.raises(TimeoutError, match="may take 1 s"):
            await once_in_transaction("k", slow)
        with pytest.raises(TimeoutError, match="may take 1 s"):
            await asyncio.to_thread(once_in_transaction_sync, "k", slow_at_once)


async def test_a_result_is_kept_as_soon_as_postgres_is_back(desk: Desk, monkeypatch) -> None:
    """An outage between doing and keeping leaves no doubt if it is short."""
    claim = await desk.claim("t")
    lost = []

    async def deed():
        backend = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'desk'"
        lost.extend(desk.view.rows(backend))
        return "done"

    monkeypatch.setattr("threadline_worker.effects._PAUSE_SECONDS", 0.01)
    with running(desk, claim):
        assert await once("k", deed, in_doubt="raise") == "done"
        assert await once("k", Deed("again"), in_doubt="raise") == "done"
    assert lost


@pytest.mark.parametrize(
    "result",
    [object(), math.nan, "\ud800", "x" * 1_048_577, math.inf],
    ids=["no JSON", "nan", "surrogate", "size", "inf"],
)
async def test_a_result_that_cannot_be_kept_says_so(desk: Desk, result) -> None:
    claim = await desk.claim("t")
    with running(desk, claim):
        with pytest.raises(OnceError, match="effect's result"):
            await once("k", Deed(result), in_doubt="raise")
        with pytest.raises(EffectInDoubt):  # it was done
            await once("k", Deed("again"), in_doubt="raise")


async def test_a_step_that_is_stopped_behind_its_effect_leaves_no_doubt(desk: Desk, monkeypatch) -> None:
    claim = await desk.claim("t")
    arrived, go_on = asyncio.Event(), asyncio.Event()
    finish = LedgerEffects.finish

    async def slowly(*given):
        arrived.set()
        await go_on.wait()
        return await finish(*given)

    monkeypatch.setattr(LedgerEffects, "finish", slowly)
    with running(desk, claim):
        step = asyncio.create_task(once("k", Deed("done"), in_doubt="raise"))
        await arrived.wait()
        step.cancel()
        asyncio.get_running_loop().call_soon(go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await step
        assert await once("k", Deed("again"), in_doubt="raise") == "done"


async def test_keys_and_places_that_cannot_work_say_what_to_do() -> None:
    with once_in_memory():
        for key in ("", "x" * 501, "a\0"):
            with pytest.raises(OnceError, match="1 to 500 characters"):
                await once(key, Deed(), in_doubt="run")
        with pytest.raises(NotInARun, match="let a worker run the tool"):
            await once_in_transaction("k", pay)
    for call in (once("k", Deed(), in_doubt="run"), once_in_transaction("k", pay)):
        with pytest.raises(NotInARun, match="wrap the call in `with once_in_memory"):
            await call


async def test_in_memory_a_tools_test_sees_the_same() -> None:
    with once_in_memory() as kept:
        deed = Deed((1, 2))
        assert await once("k", deed, in_doubt="raise") == [1, 2]
        assert once_sync("k", deed.at_once, in_doubt="raise") == [1, 2]
        assert (deed.times, kept) == (1, {"k": "[1,2]"})
        kept["half"] = None
        with pytest.raises(EffectInDoubt):
            once_sync("half", deed.at_once, in_doubt="raise")
        assert once_sync("half", deed.at_once, in_doubt="run") == [1, 2]


async def test_F2_what_a_tool_has_set_for_its_connection_is_not_there_for_the_next_one(desk: Desk, shared) -> None:
    """The next transaction there is another job's: it must not act as somebody else, or without the limit."""
    claim = await desk.claim("t")

    async def settle(connection) -> str:
        await connection.execute("CREATE TEMP TABLE mine (n int)")
        await connection.execute("SELECT set_config('app.user', 'alice', false), pg_advisory_lock(7)")
        await connection.execute("SET transaction_timeout = 0")
        return "set"

    async def look(connection) -> list:
        cursor = await connection.execute(
            "SELECT coalesce(current_setting('app.user', true), '') AS who,"
            " current_setting('transaction_timeout') AS most, to_regclass('mine')::text AS mine,"
            " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks,"
            " pg_backend_pid() AS pid"
        )
        row = await cursor.fetchone()
        return [row[name] for name in ("who", "most", "mine", "locks", "pid")]

    async with Database(shared, application_name="tools", max_size=1, transaction_timeout=1.0, lent=True) as one:
        with running(desk, claim, one):
            before = await once_in_transaction("before", look)
            assert await once_in_transaction("a", settle) == "set"
            found = await once_in_transaction("b", look)
    assert found == before == ["", "1s", None, 0, before[-1]]  # the same backend
