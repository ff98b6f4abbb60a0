-- L9: %(job_id)s, an internal job, and how it stands. No row: it was forgotten.
SELECT state, code, message, result, started_at IS NOT NULL AS started FROM {schema}.jobs
WHERE job_id = %(job_id)s AND kind = 'internal'
