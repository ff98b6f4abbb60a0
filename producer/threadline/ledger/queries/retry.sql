-- L7: %(job_id)s goes on as the same job with a new epoch; see the function in schema/0004_resume.sql. No row: unknown.
SELECT * FROM {schema}.retry_job(%(job_id)s)
