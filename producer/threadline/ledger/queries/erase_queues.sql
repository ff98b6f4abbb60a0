-- Where Redis may have messages of %(user_id)s: every queue that the user's jobs were in, that a job is open in, or that a
-- registered worker serves; one a row.
SELECT 'default' AS queue
UNION SELECT queue FROM {schema}.erasure_jobs WHERE user_id = %(user_id)s
UNION SELECT queue FROM {schema}.jobs
WHERE state IN ('queued', 'running') OR (state = 'interrupted' AND answered_by IS NULL)
UNION SELECT unnest(queues) FROM {schema}.workers
