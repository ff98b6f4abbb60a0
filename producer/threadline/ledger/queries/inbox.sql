-- What waits for a person, longest first. %(user_id)s and %(thread_id)s filter where not null; %(limit)s.
SELECT job_id, thread_id, user_id, agent, interrupts, metadata, finished_at AS since, wait_expires_at AS expires_at
FROM {schema}.jobs
WHERE state = 'interrupted' AND answered_by IS NULL
  AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s::text)
  AND (%(thread_id)s::text IS NULL OR thread_id = %(thread_id)s::text)
ORDER BY finished_at, seq LIMIT %(limit)s
