-- Newest first. %(state)s, %(thread_id)s, %(user_id)s, %(queue)s filter where not null; %(limit)s.
SELECT job_id, thread_id, user_id, agent, state, epoch, worker_id, failures, stalls, code, message, created_at, started_at,
    finished_at, metadata, {schema}.webhook_status(job_id, options) AS webhook, queue,
    worker_version, agent_fingerprint
FROM {schema}.jobs
WHERE kind <> 'internal'
  AND (%(state)s::text IS NULL OR state = %(state)s::text)
  AND (%(thread_id)s::text IS NULL OR thread_id = %(thread_id)s::text)
  AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s::text)
  AND (%(queue)s::text IS NULL OR queue = %(queue)s::text)
ORDER BY created_at DESC, seq DESC LIMIT %(limit)s
