-- The row that an event is rebuilt from. %(job_id)s.
SELECT job_id, kind, thread_id, agent, state, epoch, transition, transition_at, previous_worker, worker_id, code, message, result,
    interrupts, checkpoint_id, created_at, run_at, log_top
FROM {schema}.jobs WHERE job_id = %(job_id)s
