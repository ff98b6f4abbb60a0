-- Jobs that were not started in time, and queued jobs with a pending cancel (L8). %(limit)s.
WITH due AS (
    SELECT j.job_id, c.code AS cancel FROM {schema}.jobs AS j LEFT JOIN {schema}.cancel_requests AS c USING (job_id)
    WHERE j.state = 'queued' AND j.started_at IS NULL AND j.expires_at <= clock_timestamp()
    LIMIT %(limit)s FOR UPDATE OF j SKIP LOCKED
)
UPDATE {schema}.jobs AS j SET state = CASE WHEN due.cancel IS NULL THEN 'failed' ELSE 'cancelled' END,
    code = coalesce(due.cancel, 'expired'),
    message = CASE WHEN due.cancel IS NULL THEN 'the job was not started in time' END, epoch = j.epoch + 1,
    transition = 'expire', transition_at = clock_timestamp(), finished_at = clock_timestamp()
FROM due WHERE j.job_id = due.job_id
RETURNING j.job_id, j.thread_id, j.agent, j.state, j.code
