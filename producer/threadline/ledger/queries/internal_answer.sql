-- L9: %(job_id)s, an internal job, and how it ended. No row: it has not.
SELECT state, code, message, result, started_at IS NOT NULL AS started FROM {schema}.jobs
WHERE job_id = %(job_id)s AND kind = 'internal' AND state IN ('succeeded', 'failed', 'cancelled')
