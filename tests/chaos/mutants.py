"""Ways to break the promise, each a small change of the package, and the tests that must notice.

`old` must stand in the file exactly once: a mutant that no longer applies is an error, not a pass.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["MUTANTS", "SHORT", "Mutant", "applied"]

_HOUSE: Final = Path(__file__).parent.parent.parent
_CUSTODY = "producer/threadline/ledger"
_WORKER = "worker/threadline_worker"
_FENCE = "tests/integration/test_fence.py"
_LEDGER = "tests/integration/test_ledger.py"
_CHAOS = "tests/chaos/test_chaos.py"


class Mutant(NamedTuple):
    """`test` is what must fail: pytest's node id."""

    name: str
    file: str
    old: str
    new: str
    test: str


_CHECK = """                if pipeline:
                    await cursor.execute(self._check, self._fence)
"""

MUTANTS: Final = (
    Mutant(
        "F1: the fence is gone",
        f"{_WORKER}/checkpoints.py",
        _CHECK,
        "",
        f"{_FENCE}::test_F1_a_stale_worker_adds_no_checkpoint",
    ),
    Mutant(
        "F1: the fence is the first statement",
        f"{_WORKER}/checkpoints.py",
        "                yield cursor\n" + _CHECK,
        _CHECK + "                yield cursor\n",
        f"{_FENCE}::test_F1_a_writer_that_stopped_before_its_check_blocks_no_rescuer",
    ),
    Mutant(
        "F1: the fence stays open after the job has left running",
        f"{_CUSTODY}/schema/0001_ledger.sql",
        "AND worker_id = p_worker AND state = 'running'\n    FOR SHARE",
        "AND worker_id = p_worker\n    FOR SHARE",
        f"{_FENCE}::test_F1_the_fence_closes_when_the_job_leaves_running",
    ),
    Mutant(
        "F1: the fence does not compare epochs",
        f"{_CUSTODY}/schema/0001_ledger.sql",
        "AND thread_id = p_thread AND epoch = p_epoch AND",
        "AND thread_id = p_thread AND",
        f"{_FENCE}::test_F1_a_stale_worker_adds_no_checkpoint",
    ),
    Mutant(
        "F3: a rescue leaves the dead worker's backends alone",
        f"{_WORKER}/rescue.py",
        '            await connection.execute(self._queries["terminate_backends"], name)\n',
        "",
        "tests/integration/test_liveness.py::test_F3_a_dead_workers_backend_that_hangs_in_mid_write_is_ended",
    ),
    Mutant(
        "F4: the id clock is not raised to the head's",
        f"{_WORKER}/checkpoints.py",
        "max(clock._last_v6_timestamp or 0, ticks)",
        "clock._last_v6_timestamp",
        f"{_FENCE}::test_F4_ids_never_fall_below_the_head",
    ),
    Mutant(
        "L1: finish compares no epoch",
        f"{_CUSTODY}/queries/finish.sql",
        "AND j.epoch = %(epoch)s AND j.worker_id = %(worker_id)s AND j.state",
        "AND (j.epoch = %(epoch)s OR j.worker_id = %(worker_id)s) AND j.state",
        f"{_LEDGER}::test_L1_a_stale_epoch_changes_nothing",
    ),
    Mutant(
        "L1: a claim raises no epoch",
        f"{_CUSTODY}/queries/claim.sql",
        "    epoch = j.epoch + 1,\n",
        "    epoch = j.epoch,\n",
        f"{_LEDGER}::test_L1_every_transition_raises_the_epoch",
    ),
    Mutant(
        "L6: a claim whose answer was lost is never given back",
        f"{_WORKER}/reconcile.py",
        "                self._spawn(self._give_back(job))",
        "                pass",
        f"{_CHAOS}::test_L6_a_claim_whose_answer_was_lost_is_given_back",
    ),
    Mutant(
        "L7: a drain is charged",
        f"{_WORKER}/execution.py",
        "return await ledger.release(claim, code, delay=delay, log_top=top)",
        "return await ledger.release(claim, code, delay=delay, log_top=top, failure=True)",
        f"{_CHAOS}::test_a_rolling_restart_under_load_loses_and_charges_nothing",
    ),
    Mutant(
        "L8: a rescue forgets the cancel",
        f"{_CUSTODY}/queries/rescue.sql",
        "c.code AS cancel",
        "NULL::text AS cancel",
        f"{_LEDGER}::test_L8_pending_cancel_wins",
    ),
    Mutant(
        "O1: a claim does not look at the order",
        f"{_CUSTODY}/queries/claim.sql",
        "      AND {schema}.is_head(j) AND NOT",
        "      AND NOT",
        "tests/integration/test_ledger_order.py::test_O1_jobs_run_in_the_order_of_enqueue",
    ),
    Mutant(
        "O4: a rollback only deletes the newer checkpoints",
        f"{_CUSTODY}/custody.py",
        '("restore_checkpoints", "restore_writes", "restore_saved", "restore_blobs")',
        '("restore_checkpoints",)',
        "tests/integration/test_rollback.py"
        "::test_O4_pending_writes_of_the_heads_of_every_namespace_come_back_and_newer_ones_go",
    ),
    Mutant(
        "O4: the thread is not restored",
        f"{_CUSTODY}/custody.py",
        'if found["heads"] is not None:',
        "if False:",
        f"{_CHAOS}::test_O4_a_rollback_leaves_nothing_of_the_job_whatever_happens_meanwhile",
    ),
    Mutant(
        "P1: Redis takes a stale epoch",
        "producer/threadline/log/append.lua",
        "if epoch < top_epoch then",
        "if false then",
        "tests/integration/test_log.py::test_P2_a_lower_epoch_is_refused",
    ),
    Mutant(
        "P2: a follower marks no gaps",
        "producer/threadline/log/reader.py",
        "            if not self.position.follows(event):\n                yield self.position.gap(event)\n",
        "",
        f"{_CHAOS}::test_6_subscribers_see_every_event_or_a_gap_while_redis_misbehaves",
    ),
    Mutant(
        "P4: subscribe after replay",
        "producer/threadline/log/reader.py",
        """        async for event in self._replay():
            yield event
        if self.position.last == before:
""",
        """        await feed._pubsub.unsubscribe()
        while (await feed._pubsub.get_message(ignore_subscribe_messages=False, timeout=5.0))["type"] != "unsubscribe":
            pass
        async for event in self._replay():
            yield event
        await feed._pubsub.subscribe(self._stream)
        while (await feed._pubsub.get_message(ignore_subscribe_messages=False, timeout=5.0))["type"] != "subscribe":
            pass
        if self.position.last == before:
""",
        f"{_CHAOS}::test_P4_what_is_published_while_a_subscriber_arrives_reaches_it_at_once",
    ),
    Mutant(
        "R1: checkpoints are written behind the steps",
        f"{_WORKER}/graph_run.py",
        'durability="sync"',
        'durability="exit"',
        f"{_CHAOS}::test_a_crash_at_every_point_between_claim_checkpoint_and_finish",
    ),
    Mutant(
        "R2: the decision looks at state.next",
        f"{_WORKER}/resume.py",
        "    if not state.tasks:\n",
        "    if not state.next:\n",
        "tests/integration/test_decision.py::test_R2_a_task_whose_writes_are_saved_is_not_finished",
    ),
    Mutant(
        "R2: a pick-up starts from the input again",
        f"{_WORKER}/graph_run.py",
        'if self._decision.action == "resume":\n            return None',
        "if False:\n            return None",
        f"{_CHAOS}::test_a_crash_at_every_point_between_claim_checkpoint_and_finish",
    ),
    Mutant(
        "V3: a new session of the rescuer remembers what it saw before",
        f"{_WORKER}/rescue.py",
        "        self._seen.clear()\n        self._session_since = self._clock()\n",
        "        pass\n",
        f"{_CHAOS}::test_V3_an_outage_of_postgres_longer_than_the_lease_kills_nobody[refuse]",
    ),
)

#: What runs within `make test`: the quick ones that hold the most.
SHORT: Final = (
    "F1: the fence is gone",
    "F1: the fence stays open after the job has left running",
    "L1: finish compares no epoch",
    "O4: a rollback only deletes the newer checkpoints",
    "R2: the decision looks at state.next",
    "R2: a pick-up starts from the input again",
)


def applied(mutant: Mutant, folder: Path) -> list[Path]:
    """A private copy of the package with the change; the folders to put first on PYTHONPATH."""
    for part in ("producer", "worker"):
        shutil.copytree(_HOUSE / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise AssertionError(f"{mutant.name}: {mutant.file} has changed; write the mutant anew:\n{mutant.old}")
    file.write_text(text.replace(mutant.old, mutant.new))
    return [folder / "producer", folder / "worker"]
