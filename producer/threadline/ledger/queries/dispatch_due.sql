-- L4: due heads of threads that were never dispatched (since they were queued). %(limit)s. The caller puts each into the
-- queue; what it loses is found again (dispatched_long_ago).
WITH due AS (
    SELECT j.job_id FROM {schema}.jobs AS j JOIN {schema}.threads AS t USING (thread_id)
    WHERE j.state = 'queued' AND j.dispatched_at IS NULL AND j.run_at <= now() AND t.restoring IS NULL
      -- is_head, written out: as a function it is called for each of the many that wait behind others, three times as slow
      AND NOT EXISTS (
        SELECT FROM {schema}.jobs AS before
        WHERE before.thread_id = j.thread_id AND before.job_id <> j.job_id
          AND (before.state IN ('queued', 'running') OR (before.state = 'interrupted' AND before.answered_by IS NULL))
          AND (before.state = 'running' OR (before.turn, before.seq) < (j.turn, j.seq))
          AND NOT (before.state = 'queued' AND before.started_at IS NULL AND before.run_at > now()))
    ORDER BY j.run_at LIMIT %(limit)s FOR UPDATE OF j SKIP LOCKED
)
UPDATE {schema}.jobs AS j SET dispatched_at = clock_timestamp(), dispatch_n = j.dispatch_n + 1
FROM due WHERE j.job_id = due.job_id
RETURNING j.job_id, j.epoch, j.dispatch_n, j.queue
