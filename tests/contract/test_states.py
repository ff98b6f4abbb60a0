"""The table of transitions is the truth: SQL allows its states only, and really makes each of its transitions."""

from __future__ import annotations

import re
from importlib.resources import files

from support.ledger import Bench, bench_on, record_transitions, recorded_transitions
from threadline.contract.states import ENDED, TRANSITIONS, State, Transition
from threadline.ledger.sql import Queries

TABLE = {(str(before), str(after)) for before, targets in TRANSITIONS.items() for after in targets}


def test_the_table_knows_every_state() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.INTERRUPTED} == ENDED
    assert TRANSITIONS[State.SUCCEEDED] == frozenset()


async def test_the_ledger_allows_these_states_and_no_other(database_url: str) -> None:
    async with bench_on(database_url) as bench:
        [row] = await bench.sql(
            "SELECT pg_get_constraintdef(oid) AS text FROM pg_constraint"
            " WHERE conrelid = 'threadline.jobs'::regclass AND contype = 'c' AND conname LIKE '%%state%%'"
        )
    assert set(re.findall(r"'(\w+)'", row["text"])) == {str(state) for state in State}


def test_transitions_are_named_in_the_sql_as_in_the_contract() -> None:
    folder = files("threadline.ledger")
    texts = [entry.read_text() for part in ("queries", "schema") for entry in (folder / part).iterdir()]
    used = {name for text in texts for name in re.findall(r"(?<!previous_)\btransition = '(\w+)'", text)}
    used |= {
        name
        for text in texts
        for case in re.findall(r"transition = CASE (.*?) END", text, re.DOTALL)
        for name in re.findall(r"(?:THEN|ELSE) '(\w+)'", case)
    }
    assert used | {"enqueue"} == {str(name) for name in Transition}


async def test_the_sql_makes_every_transition_of_the_table_and_no_other(database_url: str) -> None:
    record_transitions(database_url)
    async with bench_on(database_url) as bench:
        await drive(bench)
    made = recorded_transitions(database_url)
    changed = {(step.from_state, step.to_state) for step in made}
    assert changed == TABLE
    assert {step.transition for step in made} | {"enqueue"} == {str(name) for name in Transition}
    assert all(step.after == step.before + 1 for step in made)


async def drive(bench: Bench) -> None:
    """Take jobs over every way that the ledger's statements know."""
    ledger = bench.ledger
    for state in ("succeeded", "failed", "cancelled", "interrupted"):
        await bench.end((await bench.enqueue(thread_id=state)).job_id, state)
    for state in ("failed", "cancelled"):
        [job] = await ledger.jobs(thread_id=state)
        await ledger.retry(job.job_id)
    [waiting] = await ledger.jobs(thread_id="interrupted")
    await ledger.cancel(waiting.job_id)

    assert await ledger.release(await bench.started(), "drain")
    assert await ledger.release(await bench.started(), "transient", failure=True, limit=1)
    released = await bench.started()
    await ledger.cancel(released.job_id)
    assert await ledger.release(released, "drain")

    await ledger.cancel((await bench.enqueue()).job_id)
    late = await bench.enqueue(expires=60)
    await bench.set(late.job_id, "expires_at = now() - interval '1 second'")
    assert [row["state"] for row in await ledger.expire()] == ["failed"]
    late = await bench.enqueue(expires=60)
    await bench.set(late.job_id, "expires_at = now() - interval '1 second'")
    row = await ledger.claim(late.job_id, "w1")
    assert isinstance(row, dict)
    assert row["state"] == "failed"
    long = await bench.started(timeout=60)
    await bench.set(long.job_id, "claimed_at = now() - interval '61 seconds'")
    assert [row["state"] for row in await ledger.enforce_deadlines(3600, grace=0)] == ["failed"]

    await bench.started("w2")
    await bench.rescue("w2", limit=2)
    await bench.worker("w2")
    await bench.started("w2")
    await bench.rescue("w2", limit=1)


def test_the_sql_of_another_namespace_names_it_everywhere() -> None:
    queries = Queries("staging", "graphs")
    for entry in (files("threadline.ledger") / "queries").iterdir():
        text = queries[entry.name.removesuffix(".sql")]
        assert re.search(r"\{[a-z_]+\}", text) is None, entry.name  # arrays and repetitions have braces, too
        assert "threadline." not in text, entry.name
