-- L1, L7, L8: %(job_id)s, %(epoch)s, %(worker_id)s; %(code)s and %(message)s say why, %(failure)s whether it is charged,
-- %(limit)s failures end the job, %(delay)s seconds until it is due again; %(log_top)s as in finish.sql. A pending cancel
-- wins. No row: no longer ours.
UPDATE {schema}.jobs AS j SET
    state = CASE WHEN c.job_id IS NOT NULL THEN 'cancelled' WHEN over.limit THEN 'failed' ELSE 'queued' END,
    code = CASE WHEN c.job_id IS NOT NULL THEN c.code ELSE %(code)s END,
    message = %(message)s, epoch = epoch + 1, log_top = %(log_top)s, transition = 'release',
    silent_since = NULL, transition_at = clock_timestamp(),
    failures = failures + %(failure)s::int, previous_worker = worker_id, worker_id = NULL,
    run_at = clock_timestamp() + make_interval(secs => %(delay)s), dispatched_at = NULL,
    finished_at = CASE WHEN c.job_id IS NOT NULL OR over.limit THEN clock_timestamp() END,
    running_seconds = running_seconds + extract(epoch FROM clock_timestamp() - claimed_at)
FROM (SELECT job_id AS own, %(failure)s::int = 1 AND failures + 1 >= %(limit)s AS "limit" FROM {schema}.jobs
      WHERE job_id = %(job_id)s AND epoch = %(epoch)s AND worker_id = %(worker_id)s AND state = 'running') AS over
LEFT JOIN {schema}.cancel_requests AS c ON c.job_id = over.own
WHERE j.job_id = over.own AND j.epoch = %(epoch)s AND j.worker_id = %(worker_id)s AND j.state = 'running'
RETURNING j.job_id, j.kind, j.thread_id, j.agent, j.state, j.epoch, j.transition, j.transition_at, j.previous_worker,
    j.worker_id, j.code, j.message, j.result, j.interrupts, j.checkpoint_id, j.run_at, j.log_top,
    j.running_seconds, substring(j.options::text FROM '"traceparent"\s*:\s*"([0-9a-f-]{55})"') AS traceparent
