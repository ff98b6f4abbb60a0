-- L8: %(job_id)s, %(rollback)s. Result: state, thread_id, changed; no row if the job is unknown.
SELECT * FROM {schema}.cancel_job(%(job_id)s, %(rollback)s)
