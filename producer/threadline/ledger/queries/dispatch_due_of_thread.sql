-- L4: as dispatch_due, of the thread %(thread_id)s alone. A statement of its own: with the thread as an option of the other
-- one Postgres walks all that is not dispatched, each time a job ends. %(limit)s.
WITH due AS (
    SELECT j.job_id FROM {schema}.jobs AS j JOIN {schema}.threads AS t USING (thread_id)
    WHERE j.state = 'queued' AND j.dispatched_at IS NULL AND j.run_at <= now() AND t.restoring IS NULL
      AND j.thread_id = %(thread_id)s AND {schema}.is_head(j)
    ORDER BY j.run_at LIMIT %(limit)s FOR UPDATE OF j SKIP LOCKED
)
UPDATE {schema}.jobs AS j SET dispatched_at = clock_timestamp(), dispatch_n = j.dispatch_n + 1
FROM due WHERE j.job_id = due.job_id
RETURNING j.job_id, j.epoch, j.dispatch_n, j.queue
