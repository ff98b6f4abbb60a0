"""Ways to break what runs, workers and logs promise (rules F, V, R and P, and leaks); see `mutants`."""

from __future__ import annotations

from typing import Final

from mutation import Mutant

__all__ = ["RUNS"]

_CUSTODY = "producer/threadline/ledger"
_WORKER = "worker/threadline_worker"
_FENCE = "tests/integration/test_fence.py"
_LIVE = "tests/integration/test_liveness.py"
_CHAOS = "tests/chaos/test_chaos.py"
_RULES = "tests/chaos/test_rules.py"

_CHECK = """                if pipeline:
                    await cursor.execute(self._check, self._fence)
"""

RUNS: Final = (
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
        "R2: what the graph has lost is not looked for",
        f"{_WORKER}/resume.py",
        "    if lost := await gone():\n",
        "    if lost := []:\n",
        "tests/upgrade/test_changed_graphs.py::test_R2_an_answer_to_a_node_that_is_gone_is_kept_until_the_node_is_back",
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
        "8: runs that are over are kept",
        f"{_WORKER}/intake.py",
        "            self._runs.remove(run)\n",
        "            self._runs.remove(run)\n            self.__dict__.setdefault('kept', []).append(run)\n",
        "tests/chaos/test_leaks.py::test_8_a_worker_keeps_nothing_of_its_jobs_and_each_leak_would_be_seen",
    ),
)
