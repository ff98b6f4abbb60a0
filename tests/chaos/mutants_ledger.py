"""Ways to break what the ledger promises (rules L and O, and queues); see `mutants`."""

from __future__ import annotations

from typing import Final

from mutation import Mutant

__all__ = ["LEDGER"]

_CUSTODY = "producer/threadline/ledger"
_WORKER = "worker/threadline_worker"
_LEDGER = "tests/integration/test_ledger.py"
_ENQUEUE = "tests/integration/test_enqueue.py"
_INTERNAL = "tests/integration/test_internal_jobs.py"
_CHAOS = "tests/chaos/test_chaos.py"
_QUEUES = "tests/integration/test_queues"
_SHARES = "tests/integration/test_queue_shares.py"

LEDGER: Final = (
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
        "L2: another request under the same key is the first job",
        f"{_CUSTODY}/schema/0001_ledger.sql",
        "v_job.fingerprint = p_fingerprint THEN",
        "v_job.fingerprint IS NOT NULL THEN",
        f"{_ENQUEUE}::test_L2_another_request_under_the_same_key_is_refused",
    ),
    Mutant(
        "L2: a key that comes second in a race makes a second job",
        f"{_CUSTODY}/schema/0001_ledger.sql",
        "CREATE UNIQUE INDEX jobs_idempotency",
        "CREATE INDEX jobs_idempotency",
        f"{_ENQUEUE}::test_L2_an_equal_enqueue_in_a_race_gets_the_first_job",
    ),
    Mutant(
        "L3: a message is sent before the caller commits",
        "producer/threadline/calls/submit.py",
        "if connection is None and stored.created and stored.head:",
        "if stored.created and stored.head:",
        f"{_ENQUEUE}::test_L3_a_committed_job_is_notified_and_not_sent",
    ),
    Mutant(
        "L3: an error inside takes the caller's transaction with it",
        "producer/threadline/ledger/ledger.py",
        "async with connection.transaction(), connection.cursor(",
        "async with connection.cursor(",
        f"{_ENQUEUE}::test_L3_an_error_inside_is_undone_to_the_savepoint",
    ),
    Mutant(
        "L4: what was lost or given back is not dispatched again",
        f"{_WORKER}/sweep.py",
        "steps += [self._restore, self._adopt, self._dispatch]",
        "steps += [self._restore, self._adopt]",
        f"{_CHAOS}::test_L6_a_claim_whose_answer_was_lost_is_given_back",
    ),
    Mutant(
        "L5: a message goes although the database did not take its job",
        f"{_WORKER}/intake.py",
        "            raise later(1.0) from None\n",
        "            return\n",
        "tests/integration/test_adoption.py::test_L5_a_message_survives_a_database_that_cannot_take_it",
    ),
    Mutant(
        "L5: a message that can be no job goes without a word",
        f"{_WORKER}/consumer.py",
        "                await self._dead_letter(message_id, job_id.why, job_id.body[:_KEPT_BYTES])\n",
        "                pass\n",
        f"{_CHAOS}::test_L5_hostile_messages_are_set_aside_and_hurt_nobody",
    ),
    Mutant(
        "L7: nobody is found out as poison",
        f"{_WORKER}/rescue.py",
        "STALL_LIMIT = 3\n",
        "STALL_LIMIT = 1_000\n",
        f"{_CHAOS}::test_L7_a_memory_bomb_is_found_out_and_its_neighbours_only_restart",
    ),
    Mutant(
        "L7: who is out of memory goes on, and its neighbours fail",
        f"{_WORKER}/exhaustion.py",
        "            os._exit(EXHAUSTED_EXIT)",
        "            pass",
        f"{_CHAOS}::test_L7_a_memory_bomb_is_found_out_and_its_neighbours_only_restart",
    ),
    Mutant(
        "L9: an update of a state is not fenced",
        f"{_WORKER}/internal/atomic_saver.py",
        "                await connection.execute(self._check, self._fence)\n",
        "",
        f"{_INTERNAL}::test_L9_a_stale_worker_changes_nothing",
    ),
    Mutant(
        "L9: a fork is not fenced",
        f"{_WORKER}/internal/fork.py",
        '        await connection.execute(scope.queries["fence"], scope.fence)\n',
        "",
        f"{_INTERNAL}::test_L9_a_stale_worker_changes_nothing",
    ),
    Mutant(
        "O2: a thread that waits for a person takes the next job",
        f"{_CUSTODY}/schema/0001_ledger.sql",
        "AND (before.state IN ('queued', 'running') OR (before.state = 'interrupted' AND before.answered_by IS NULL))",
        "AND before.state IN ('queued', 'running')",
        "tests/integration/test_ledger_order.py::test_O2_while_a_thread_waits_for_a_person_later_jobs_wait",
    ),
    Mutant(
        "O3: what is queued is not replaced",
        f"{_CUSTODY}/schema/0001_ledger.sql",
        "      AND (j.state = 'queued' OR (j.state = 'interrupted' AND j.answered_by IS NULL));\n"
        "    PERFORM pg_notify('{schema}', '');\nEND $$;\n\n-- O4",
        "      AND false;\n    PERFORM pg_notify('{schema}', '');\nEND $$;\n\n-- O4",
        "tests/integration/test_ledger_order.py::test_O3_interrupt_and_rollback_also_cancel_what_is_queued_or_waits",
    ),
    Mutant(
        "queues: anybody claims what is in any queue",
        f"{_CUSTODY}/queries/claim.sql",
        "        AND j.queue = ANY (coalesce(w.queues, ARRAY['default']))\n",
        "",
        f"{_QUEUES}_ledger.py::test_of_any_jobs_and_workers_only_those_that_fit_meet",
    ),
    Mutant(
        "queues: a worker of a release without them claims from all",
        f"{_CUSTODY}/schema/0009_queues.sql",
        "AND w.queues IS NULL) THEN",
        "AND false) THEN",
        f"{_QUEUES}_ledger.py::test_a_worker_of_a_release_without_queues_serves_the_default_one_alone",
    ),
    Mutant(
        "queues: a wake-up goes into the default queue",
        f"{_WORKER}/execution.py",
        "await dispatch.send(redis, keys, wake_ups, queue=queue)",
        "await dispatch.send(redis, keys, wake_ups)",
        f"{_QUEUES}.py::test_a_dead_workers_job_goes_back_to_its_own_queue",
    ),
    Mutant(
        "queues: the first one is always served first",
        f"{_WORKER}/consumer.py",
        "        hungry = sorted(self._taps, key=lambda tap: tap.served)\n",
        "        hungry = list(self._taps)\n",
        f"{_SHARES}::test_with_one_slot_the_queues_take_turns",
    ),
    Mutant(
        "L2: a changed map makes another request of the same one",
        "producer/threadline/contract/job.py",
        '"traceparent", "routed", *(',
        '"traceparent", *(',
        "tests/unit/test_queues.py::test_a_rule_is_no_part_of_the_request_and_a_named_queue_is",
    ),
    Mutant(
        "L4: what is lost is looked for in the default queue",
        f"{_WORKER}/sweep.py",
        "dispatched_long_ago(_LOST_AFTER, served)",
        "dispatched_long_ago(_LOST_AFTER)",
        f"{_QUEUES}.py::test_L4_what_went_astray_or_was_lost_comes_to_its_queue",
    ),
)
