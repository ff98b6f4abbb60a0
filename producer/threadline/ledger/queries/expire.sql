-- Jobs that were not started in time, waits for a person that nobody ended in time, and jobs that are queued or wait for a
-- person with a pending cancel (L8). %(limit)s. A request for a queued job is one that raced with a release: a backoff must
-- not keep the job.
WITH overdue AS (
    SELECT job_id FROM {schema}.jobs WHERE state = 'queued' AND started_at IS NULL AND expires_at <= now()
    UNION SELECT job_id FROM {schema}.jobs
    WHERE state = 'interrupted' AND answered_by IS NULL AND wait_expires_at <= now()
    UNION SELECT job_id FROM {schema}.cancel_requests JOIN {schema}.jobs USING (job_id)
    WHERE state = 'queued' OR (state = 'interrupted' AND answered_by IS NULL)
), due AS (
    SELECT j.job_id, coalesce(c.code, CASE WHEN j.state = 'interrupted' THEN 'expired' END) AS cancel
    FROM {schema}.jobs AS j JOIN overdue USING (job_id)
    LEFT JOIN {schema}.cancel_requests AS c USING (job_id)
    WHERE j.state = 'queued' OR (j.state = 'interrupted' AND j.answered_by IS NULL)
    LIMIT %(limit)s FOR UPDATE OF j SKIP LOCKED
)
UPDATE {schema}.jobs AS j SET state = CASE WHEN due.cancel IS NULL THEN 'failed' ELSE 'cancelled' END,
    code = coalesce(due.cancel, 'expired'),
    message = CASE WHEN due.cancel IS NULL THEN 'the job was not started in time' END, epoch = j.epoch + 1,
    transition = CASE WHEN due.cancel IS NULL THEN 'expire' ELSE 'cancel' END, transition_at = clock_timestamp(),
    finished_at = clock_timestamp()
FROM due WHERE j.job_id = due.job_id
RETURNING j.job_id, j.kind, j.thread_id, j.agent, j.state, j.code, j.epoch,
    substring(j.options::text FROM '"traceparent"\s*:\s*"([0-9a-f-]{55})"') AS traceparent
