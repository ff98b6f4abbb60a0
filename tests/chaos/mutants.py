"""Ways to break the promise, each a small change of the package, and the tests that must notice.

Each rule of docs/guarantees.md has one or more; what they look like and how they are applied is in `mutation`.
"""

from __future__ import annotations

from typing import Final

from mutation import Mutant

__all__ = ["MUTANTS", "SHORT"]

_CUSTODY = "producer/threadline/ledger"
_WORKER = "worker/threadline_worker"
_FENCE = "tests/integration/test_fence.py"
_LEDGER = "tests/integration/test_ledger.py"
_ENQUEUE = "tests/integration/test_enqueue.py"
_LIVE = "tests/integration/test_liveness.py"
_INTERNAL = "tests/integration/test_internal_jobs.py"
_CHAOS = "tests/chaos/test_chaos.py"
_RULES = "tests/chaos/test_rules.py"
_QUEUES = "tests/integration/test_queues"
_SHARES = "tests/integration/test_queue_shares.py"


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
        f"{_RULES}::test_F1_a_writer_that_stops_behind_its_write_holds_up_no_rescuer",
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
        f"{_LIVE}::test_F3_a_dead_workers_backend_that_hangs_in_mid_write_is_ended",
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
        "P1: what the log refuses is published all the same",
        "producer/threadline/log/append.lua",
        "if epoch < top_epoch then\n",
        "if epoch < top_epoch then\n        redis.call('PUBLISH', key, json)\n",
        f"{_RULES}::test_P1_what_the_log_refuses_nobody_hears",
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
        f"{_CHAOS}::test_R1_each_super_step_is_durable_before_the_next_begins",
    ),
    Mutant(
        "R1: a step does not wait for the checkpoint before it",
        f"{_WORKER}/graph_run.py",
        'durability="sync"',
        'durability="async"',
        f"{_CHAOS}::test_R1_each_super_step_is_durable_before_the_next_begins",
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
        "        self._seen.clear()\n        self._session_since = self._looked = self._clock()\n",
        "        self._looked = self._clock()\n",
        f"{_CHAOS}::test_V3_an_outage_of_postgres_longer_than_the_lease_kills_nobody[refuse]",
    ),
    Mutant(
        "F2: the store is not fenced",
        f"{_WORKER}/memory_store.py",
        "                    await cursor.execute(self._check, self._fence)\n",
        "                    pass\n",
        "tests/integration/test_store_fence.py::test_F2_a_stale_worker_remembers_nothing",
    ),
    Mutant(
        "F5: a replica's answer is taken for a claim",
        f"{_CUSTODY}/queries/claim.sql",
        " AND NOT pg_is_in_recovery()\n",
        "\n",
        f"{_LIVE}::test_F5_no_claim_on_a_read_only_server",
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
        "steps = [self._restore, self._adopt, self._dispatch]",
        "steps = [self._restore, self._adopt]",
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
        "P3: who has not beaten for a lease publishes",
        f"{_WORKER}/publisher.py",
        "if not self._may_publish():",
        "if False:",
        "tests/unit/test_publisher.py::test_P3_nothing_is_published_while_the_own_beat_is_older_than_the_lease",
    ),
    Mutant(
        "R3: a tool's key is another one in another process",
        f"{_WORKER}/once.py",
        "dumps([thread_id, task_id, *call, *parts])",
        "dumps([thread_id, task_id, __import__('os').getpid(), *call, *parts])",
        "tests/integration/test_step_in_flight.py"
        "::test_R3_a_tool_that_was_killed_has_the_same_key_again_and_no_other_has_it",
    ),
    Mutant(
        "R3: parallel calls of a task share a key",
        f"{_WORKER}/once.py",
        "dumps([thread_id, task_id, *call, *parts])",
        "dumps([thread_id, task_id, *parts])",
        "tests/unit/test_docs_tools.py::test_R3_a_key_is_made_of_thread_task_call_and_parts",
    ),
    Mutant(
        "V1: the beat waits for the main loop",
        f"{_WORKER}/liveness.py",
        "        asked = self._runs()\n",
        "        asked = self._runs()\n"
        "        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._main))\n",
        f"{_CHAOS}::test_V1_a_tool_that_blocks_the_loop_for_longer_than_the_lease_is_not_taken_over",
    ),
    Mutant(
        "V2: a freed lock says nothing",
        f"{_WORKER}/rescue.py",
        "        if by_lock:\n            return",
        "        if False:\n            return",
        "tests/integration/test_pickup.py::test_V2_kill_9_is_picked_up_within_three_seconds",
    ),
    Mutant(
        "V4: a wedged loop is immortal",
        f"{_WORKER}/liveness.py",
        "        if self.seconds_since_tick() > self._loop_stall:",
        "        if False:",
        f"{_LIVE}::test_V4_a_wedged_loop_turns_healthz_red_and_ends_the_process",
    ),
    Mutant(
        "V5: who was declared dead stays so",
        f"{_WORKER}/reconcile.py",
        "            self._registering = self._spawn(self._register_again())\n",
        "",
        f"{_LIVE}::test_V5_a_worker_declared_dead_registers_anew_and_works_on",
    ),
    Mutant(
        "queues: anybody claims what is in any queue",
        f"{_CUSTODY}/queries/claim.sql",
        "        AND j.queue = ANY (coalesce(w.queues, '{default}'))\n",
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
    Mutant(
        "8: runs that are over are kept",
        f"{_WORKER}/intake.py",
        "            self._runs.remove(run)\n",
        "            self._runs.remove(run)\n            self.__dict__.setdefault('kept', []).append(run)\n",
        "tests/chaos/test_leaks.py::test_8_a_worker_keeps_nothing_of_its_jobs_and_each_leak_would_be_seen",
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
