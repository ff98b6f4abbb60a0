-- L9: one row; see the function in schema/0005_internal.sql. %(target)s is the thread that the job holds.
SELECT stored.*, {schema}.queue_of(stored.job_id) AS queue
FROM {schema}.internal_job(%(job_id)s, %(operation)s, %(thread_id)s, %(target)s,
    EXISTS (SELECT FROM {checkpoints}.checkpoints AS k WHERE k.thread_id = %(target)s), %(user_id)s, %(agent)s,
    %(input)s::json, %(seconds)s, %(lease_seconds)s, %(dispatching)s) AS stored
