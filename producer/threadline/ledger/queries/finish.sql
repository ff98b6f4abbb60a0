-- L1: %(job_id)s, %(epoch)s, %(worker_id)s; %(state)s (an end), %(code)s, %(message)s, %(result)s, %(interrupts)s.
-- The row after it; no row: the job is no longer ours.
UPDATE {schema}.jobs SET state = %(state)s, code = %(code)s, message = %(message)s, result = %(result)s::json,
    interrupts = %(interrupts)s::json, epoch = epoch + 1, transition = 'finish', silent_since = NULL, transition_at = clock_timestamp(),
    finished_at = clock_timestamp(), previous_worker = worker_id,
    running_seconds = running_seconds + extract(epoch FROM clock_timestamp() - claimed_at)
WHERE job_id = %(job_id)s AND epoch = %(epoch)s AND worker_id = %(worker_id)s AND state = 'running'
RETURNING job_id, thread_id, agent, state, epoch, transition, transition_at, previous_worker, worker_id, code, message,
    result, interrupts, checkpoint_id, run_at, running_seconds
