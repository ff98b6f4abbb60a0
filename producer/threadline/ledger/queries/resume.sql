-- O2: one row; see the function in schema/0004_resume.sql.
SELECT stored.*, {schema}.queue_of(stored.job_id) AS queue
FROM {schema}.resume_job(%(job_id)s, %(thread_id)s, %(user_id)s, %(asking)s, %(answers)s::json,
    %(metadata)s::json, %(idempotency_key)s, %(fingerprint)s, %(dispatching)s) AS stored
