"""V1-V5, L6, F4, F5: who is taken for dead, and who never is."""

from __future__ import annotations

import signal
import time
from itertools import count

import psycopg
import pytest
from psycopg import AsyncConnection

from support.desk import Desk, LedgerView, desk_on
from support.gates import Gates, until
from threadline import Client
from threadline.ledger.custody import Custody
from threadline.ledger.database import Database, connection_kwargs
from threadline_worker.liveness import worker_lock_key
from threadline_worker.rescue import Rescuer

QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.25", "THREADLINE_LEASE_SECONDS": "1.5"}
ORDERS = {"THREADLINE_AGENTS": "steps=support.graphs:steps,orders=support.orders:orders"}


class Clock:
    """A rescuer's monotonic clock in the test's hands."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watch:
    """A rescuer with a session of its own, a heartbeat of 1 s and a lease of 15 s."""

    def __init__(self, desk: Desk, connection: AsyncConnection) -> None:
        self.clock = Clock()
        self.desk = desk
        self.connection = connection
        self.rescuer = Rescuer(desk.queries, "rescuer", heartbeat=1, lease=15, clock=self.clock)

    async def after(self, seconds: float) -> list[str]:
        """Look once a second for so long, as the sweep does; what was rescued."""
        rescued = []
        while True:
            step = min(seconds, 1)
            self.clock.now += step
            seconds -= step
            rescued += [row["job_id"] for row in await self.rescuer.look(self.connection)]
            if seconds <= 0:
                return rescued

    def beat(self, worker_id: str = "w-a", *, lock_ok: bool = True) -> None:
        self.desk.view.rows("UPDATE workers SET beat = beat + 1, lock_ok = %s WHERE worker_id = %s", lock_ok, worker_id)


@pytest.fixture
async def desk(database_url):
    async with desk_on(database_url) as made:
        yield made


@pytest.fixture
async def watch(desk, database_url):
    connection = await AsyncConnection.connect(database_url, **connection_kwargs("rescuer"))
    async with connection:
        yield Watch(desk, connection)


async def test_V2_a_free_lock_counts_behind_a_missed_beat_in_a_session_older_than_the_lease(desk, watch) -> None:
    claim = await desk.claim("t")
    watch.beat()
    assert await watch.after(0) == []
    assert await watch.after(1) == []  # a beat is missing and the lock is free, but this session is young
    assert await watch.after(13) == []
    watch.beat()
    assert await watch.after(1.1) == []  # old enough; it has just beaten
    assert await watch.after(0.5) == []  # not yet missed one
    assert await watch.after(0.5) == [claim.job_id]
    assert desk.view.rows("SELECT 1 FROM workers WHERE worker_id = 'w-a'") == []


async def test_V2_a_held_lock_or_one_never_seen_is_no_evidence(desk, watch, database_url) -> None:
    claim = await desk.claim("t")
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute("SELECT pg_advisory_lock(%s)", (worker_lock_key("threadline", "w-a"),))
        await watch.after(0)
        await watch.after(14)
        watch.beat()
        await watch.after(1)
        assert await watch.after(14) == []  # held: only silence counts
    watch.beat(lock_ok=False)  # behind a transaction pooler a beat does not see its lock
    await watch.after(1)
    assert await watch.after(14) == []
    assert await watch.after(1.1) == [claim.job_id]


async def test_V3_silence_counts_only_if_it_was_watched_for_a_whole_lease_in_one_session(desk, watch) -> None:
    claim = await desk.claim("t")
    watch.beat(lock_ok=False)
    desk.view.rows("UPDATE workers SET beat_at = now() - interval '1 day'")  # the database's clock proves nothing
    assert await watch.after(0) == []
    assert await watch.after(14) == []
    watch.rescuer.begin()  # the database was away: this session knows nothing
    assert await watch.after(1) == []
    assert await watch.after(14.5) == []
    watch.beat(lock_ok=False)
    assert await watch.after(1) == []
    assert await watch.after(14) == []
    assert await watch.after(1) == [claim.job_id]


async def test_V3_a_beat_between_the_verdict_and_the_rescue_saves_the_worker(desk, watch, monkeypatch) -> None:
    await desk.claim("t")
    watch.beat(lock_ok=False)
    await watch.after(14.5)
    real = watch.rescuer._dead

    def beats_meanwhile(worker):
        verdict = real(worker)
        watch.beat(lock_ok=False)
        return verdict

    monkeypatch.setattr(watch.rescuer, "_dead", beats_meanwhile)
    before = desk.view.dump("jobs")
    assert await watch.after(1) == []
    assert desk.view.dump("jobs") == before


async def test_V3_time_in_which_nobody_looked_is_no_silence(desk, watch) -> None:
    """A statement that hung, or a rescuer that was stopped: it sees old beats, and must watch a whole lease again."""
    claim = await desk.claim("t")
    watch.beat(lock_ok=False)
    await watch.after(5)
    watch.clock.now += 20
    assert await watch.after(0) == []
    assert await watch.after(14) == []
    assert await watch.after(1.1) == [claim.job_id]


async def test_L6_a_running_job_whose_worker_has_no_row_is_rescued_at_once(desk, watch) -> None:
    claim = await desk.claim("t")
    desk.view.rows("DELETE FROM workers")
    assert await watch.after(0) == [claim.job_id]


async def test_L6_a_claim_needs_a_live_workers_row(desk) -> None:
    job_id = await desk.enqueue("t")
    assert await desk.ledger.claim(job_id, "nobody") is None
    await desk.register("w")
    desk.view.rows("UPDATE workers SET draining = true")
    assert await desk.ledger.claim(job_id, "w") is None
    assert desk.view.job(job_id)["epoch"] == 0


async def test_F3_a_dead_workers_backend_that_hangs_in_mid_write_is_ended(desk, watch, database_url) -> None:
    claim = await desk.claim("t")
    watch.beat(lock_ok=False)
    with psycopg.connect(database_url, application_name="threadline:w-a") as hanging:
        hanging.execute("SELECT threadline.assert_fence(%s, 't', 1, 'w-a')", (claim.job_id,))  # holds the job's row
        await watch.after(0)
        started = time.monotonic()
        assert await watch.after(16) == [claim.job_id]
        assert time.monotonic() - started < 1.5
        with pytest.raises(psycopg.OperationalError):
            hanging.execute("SELECT 1")


async def test_F5_no_claim_on_a_read_only_server(desk, database_url) -> None:
    job_id = await desk.enqueue("t")
    await desk.register("w")
    desk.view.rows("CREATE SCHEMA fake")
    desk.view.rows("CREATE FUNCTION fake.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true'")
    options = "-c search_path=fake,pg_catalog"
    async with Database(database_url, application_name="replica", options=options) as replica:
        assert await Custody(replica, desk.queries).claim(job_id, "w") is None
    assert desk.view.job(job_id)["state"] == "queued"


async def test_V1_one_statement_a_second_and_a_lock_that_can_be_seen(client, workers, env, database_url) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    worker = workers(THREADLINE_HEARTBEAT_SECONDS="0.5", THREADLINE_LEASE_SECONDS="2")
    for number in range(8):
        gates.close(f"t{number}", 0)
        await client.enqueue("steps", {"done": [], "until": 1}, thread_id=f"t{number}")
    for number in range(8):
        await gates.begun(f"t{number}", 0)
    held = (
        "SELECT w.lock_ok, l.pid FROM workers w JOIN pg_locks l ON l.locktype = 'advisory' AND l.granted"
        " AND ((l.classid::bigint << 32) | l.objid::bigint) = w.lock_key"
    )
    await until(lambda: [row for row in view.rows(held) if row["lock_ok"]] or None, "the lock is seen as held")
    name = view.rows("SELECT application_name FROM pg_stat_activity WHERE pid = %s", view.rows(held)[0]["pid"])
    assert name == [{"application_name": f"threadline:{worker.worker_id}"}]
    first = view.rows("SELECT beat, clock_timestamp() AS at FROM workers")[0]
    await until(lambda: view.rows("SELECT beat FROM workers")[0]["beat"] >= first["beat"] + 4 or None, "four beats")
    last = view.rows("SELECT beat, clock_timestamp() AS at FROM workers")[0]
    seconds = (last["at"] - first["at"]).total_seconds()
    assert last["beat"] - first["beat"] <= seconds / 0.5 + 1  # the eight jobs add none
    # Nothing else of the worker's beats: eight running jobs, one statement.
    assert worker.seen().count("job.claimed") == 8


async def test_L6_a_claim_whose_answer_was_lost_is_given_back_uncharged(client, workers, env, database_url) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    worker = workers(**QUICK)
    # Claimed by this worker, as far as the ledger knows; the worker never heard of it.
    async with desk_on(database_url) as desk:
        for number in count():  # its sweep may be quicker, and then it did hear of it
            job_id = await desk.enqueue(thread := f"t{number}")
            if await desk.ledger.claim(job_id, worker.worker_id) is not None:
                break
    assert worker.logged("claim.lost")["job_id"] == job_id
    assert await (await client.job(job_id)).result(timeout=10) == {"done": [0, 1, 2], "until": 3}
    row = view.job(job_id)
    assert (row["failures"], row["stalls"], gates.steps(thread)) == (0, 0, [0, 1, 2])


async def test_V4_a_blocked_loop_loses_nothing_and_is_not_taken_over(client, workers, env, database_url) -> None:
    """A tool that blocks for longer than the lease: the beat has a thread of its own."""
    gates, view = Gates(env), LedgerView(database_url)
    blocked, other = workers(**QUICK, **ORDERS), workers(**QUICK, **ORDERS)
    gates.order("t", 1, "once block 4")
    job = await client.enqueue("orders", {"done": [], "until": 3}, thread_id="t")
    pid = (await gates.begun("t", 1)).pid
    assert await job.result(timeout=15) == {"done": [0, 1, 2], "until": 3}
    assert [effect.pid for effect in gates.effects("t")] == [pid] * 3
    assert gates.steps("t") == [0, 1, 2]
    assert view.job(job.job_id)["epoch"] == 2
    for worker in (blocked, other):
        assert not {"worker.dead", "worker.declared_dead", "lease.lost"} & set(worker.seen())


async def test_V4_a_wedged_loop_turns_healthz_red_and_ends_the_process(client, workers, env, database_url) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    worker = workers(**QUICK, **ORDERS, THREADLINE_LOOP_STALL_SECONDS="3")
    assert worker.status("healthz") == (200, [])
    gates.order("t", 1, "once block 60")
    job = await client.enqueue("orders", {"done": [], "until": 2}, thread_id="t")
    await gates.begun("t", 1)
    _code, reasons = await until(lambda: (s := worker.status("healthz"))[0] == 503 and s, "/healthz is red")
    assert "event loop" in reasons[0]
    assert worker.process.wait(10) == 70
    assert worker.seen()[-1] == "worker.stalled"
    workers(**QUICK, **ORDERS)
    assert await job.result(timeout=15) == {"done": [0, 1], "until": 2}
    assert view.job(job.job_id)["failures"] == 0


async def test_V4_deadlines_are_enforced_whatever_the_beats_say(client, workers, env, database_url) -> None:
    """The running worker does not see its own deadline: its loop is blocked, its beat is well."""
    gates, view = Gates(env), LedgerView(database_url)
    workers(**QUICK, **ORDERS)
    gates.order("t", 0, "block 8")
    job = await client.enqueue("orders", {"done": [], "until": 2}, thread_id="t", timeout=0.5)
    await gates.begun("t", 0)
    gates.forget("t", 0)
    workers(**QUICK, **ORDERS)
    row = await until(lambda: (r := view.job(job.job_id))["state"] == "failed" and r, "it has failed", limit=6)
    assert (row["code"], row["transition"]) == ("timeout", "timeout")


async def test_V3_a_database_outage_longer_than_the_lease_kills_nobody(client, workers, env, database_url) -> None:
    gates = Gates(env)
    both = [workers(**QUICK), workers(**QUICK)]
    gates.close("t", 1)
    job = await client.enqueue("steps", {"done": [], "until": 3}, thread_id="t")
    await gates.begun("t", 1)
    name = database_url.rsplit("/", 1)[1]
    with psycopg.connect(f"{database_url.rsplit('/', 1)[0]}/postgres", autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        outlasted = "its last beat is older than the lease"
        for worker in both:
            await until(lambda w=worker: outlasted in "".join(w.status("readyz")[1]), "the outage outlasts the lease")
            assert "beat.failed" in worker.seen()
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    for worker in both:
        await until(lambda w=worker: w.status("readyz")[0] == 200 or None, "it is ready again")
    gates.open("t", 1)
    async with Client(redis_url=env["REDIS_URL"], database_url=database_url) as anew:
        assert await (await anew.job(job.job_id)).result(timeout=15) == {"done": [0, 1, 2], "until": 3}
    assert gates.steps("t") == [0, 1, 2]  # the run itself went on through the outage
    for worker in both:
        assert not {"worker.dead", "worker.declared_dead", "lease.lost"} & set(worker.seen())


async def test_F4_a_worker_whose_clock_is_off_does_not_claim_and_says_so(client, workers, env, tmp_path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nreal = time.time\ntime.time = lambda: real() - 60\nreal_ns = time.time_ns\n"
        "time.time_ns = lambda: real_ns() - 60_000_000_000\n"
    )
    wrong = workers(**QUICK, PYTHONPATH=f"{tmp_path}:{env['PYTHONPATH']}")
    assert wrong.logged("clock.skew")["seconds"] == pytest.approx(60, abs=2)
    _code, reasons = await until(lambda: (s := wrong.status("readyz"))[0] == 503 and s, "it is not ready")
    assert "s off the database's" in reasons[0]
    gates = Gates(env)
    job = await client.enqueue("steps", {"done": [], "until": 1}, thread_id="t")
    right = workers(**QUICK)
    assert await job.result(timeout=10)
    assert (await gates.begun("t", 0)).pid == right.pid


async def test_F4_a_successor_whose_ids_would_be_a_minute_behind_repeats_nothing(
    client, workers, env, tmp_path
) -> None:
    gates = Gates(env)
    first = workers(**QUICK)
    gates.close("t", 3)
    job = await client.enqueue("steps", {"done": [], "until": 6}, thread_id="t")
    await gates.begun("t", 3)
    first.kill()
    gates.open("t", 3)
    # Only the clock that checkpoint ids are made of: the skew that the worker measures is none.
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nreal_ns = time.time_ns\ntime.time_ns = lambda: real_ns() - 60_000_000_000\n"
    )
    second = workers(**QUICK, PYTHONPATH=f"{tmp_path}:{env['PYTHONPATH']}")
    gates.close("t", 5)
    await gates.begun("t", 5)  # two steps are committed with such ids
    second.kill()
    gates.open("t", 5)
    workers(**QUICK)
    assert await job.result(timeout=15) == {"done": [0, 1, 2, 3, 4, 5], "until": 6}
    assert gates.steps("t") == [0, 1, 2, 3, 3, 4, 5, 5]


async def test_V5_a_worker_declared_dead_registers_anew_and_works_on(client, workers, env, database_url) -> None:
    gates, view = Gates(env), LedgerView(database_url)
    worker = workers(**QUICK)
    gates.close("t", 1)
    job = await client.enqueue("steps", {"done": [], "until": 3}, thread_id="t")
    await gates.begun("t", 1)
    view.rows("DELETE FROM workers")
    worker.logged("worker.declared_dead")
    worker.logged("lease.lost")
    gates.open("t", 1)
    assert await job.result(timeout=10) == {"done": [0, 1, 2], "until": 3}
    assert gates.steps("t") == [0, 1, 1, 2]
    assert view.rows("SELECT worker_id FROM workers") == [{"worker_id": worker.worker_id}]
    worker.signal(signal.SIGTERM)
    assert worker.process.wait(10) == 0
