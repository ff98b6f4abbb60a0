-- L4: due heads of threads that were never dispatched (since they were queued). %(thread_id)s narrows it to a thread where not
-- null; %(limit)s. The caller puts each into the queue; what it loses is found again (dispatched_long_ago).
WITH due AS (
    SELECT j.job_id FROM {schema}.jobs AS j JOIN {schema}.threads AS t USING (thread_id)
    WHERE j.state = 'queued' AND j.dispatched_at IS NULL AND j.run_at <= now() AND t.restoring IS NULL
      AND (%(thread_id)s::text IS NULL OR j.thread_id = %(thread_id)s::text) AND {schema}.is_head(j)
    ORDER BY j.run_at LIMIT %(limit)s FOR UPDATE OF j SKIP LOCKED
)
UPDATE {schema}.jobs AS j SET dispatched_at = clock_timestamp(), dispatch_n = j.dispatch_n + 1
FROM due WHERE j.job_id = due.job_id
RETURNING j.job_id, j.epoch, j.dispatch_n, j.queue
