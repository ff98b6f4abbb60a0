-- L1: %(job_id)s, %(epoch)s, %(worker_id)s; %(state)s (an end), %(code)s, %(message)s, %(result)s, %(interrupts)s;
-- %(wait_expires)s seconds until a wait for a person ends (null: never);
-- %(log_top)s is the last position that was given to an event, in the log or not (P2).
-- A pending cancel wins over waiting for a person, whom nobody would answer, and a rollback over any end: whoever asked
-- for it was told that the steps will be gone. The row after it; no row: the job is no longer ours.
UPDATE {schema}.jobs AS j SET
    state = CASE WHEN own.cancel IS NULL THEN %(state)s ELSE 'cancelled' END,
    code = coalesce(own.cancel, %(code)s), message = CASE WHEN own.cancel IS NULL THEN %(message)s END,
    result = CASE WHEN own.cancel IS NULL THEN %(result)s::json END,
    interrupts = CASE WHEN own.cancel IS NULL THEN %(interrupts)s::json END,
    epoch = j.epoch + 1, transition = 'finish', transition_at = clock_timestamp(), finished_at = clock_timestamp(),
    previous_worker = j.worker_id, silent_since = NULL, log_top = %(log_top)s,
    wait_expires_at = CASE WHEN %(state)s::text = 'interrupted'
        THEN clock_timestamp() + make_interval(secs => %(wait_expires)s::float8) END,
    running_seconds = j.running_seconds + extract(epoch FROM clock_timestamp() - j.claimed_at)
FROM (
    SELECT o.job_id, c.code AS cancel FROM {schema}.jobs AS o
    LEFT JOIN {schema}.cancel_requests AS c
        ON c.job_id = o.job_id AND (c.rollback OR %(state)s::text = 'interrupted')
    WHERE o.job_id = %(job_id)s
) AS own
WHERE j.job_id = own.job_id AND j.epoch = %(epoch)s AND j.worker_id = %(worker_id)s AND j.state = 'running'
RETURNING j.job_id, j.kind, j.thread_id, j.agent, j.state, j.epoch, j.transition, j.transition_at, j.previous_worker,
    j.worker_id, j.code, j.message, j.result, j.interrupts, j.checkpoint_id, j.run_at, j.log_top, j.running_seconds
