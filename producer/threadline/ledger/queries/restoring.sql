-- O4, T2: a thread whose rollback is half done, locked; %(thread_id)s narrows it where not null. `heads` is null if the job
-- never wrote. No row: none, or another worker is at it.
SELECT t.thread_id, t.restoring AS job_id, b.heads FROM {schema}.threads AS t
LEFT JOIN {schema}.job_bases AS b ON b.job_id = t.restoring
WHERE t.restoring IS NOT NULL AND (%(thread_id)s::text IS NULL OR t.thread_id = %(thread_id)s::text)
LIMIT 1 FOR NO KEY UPDATE OF t SKIP LOCKED
