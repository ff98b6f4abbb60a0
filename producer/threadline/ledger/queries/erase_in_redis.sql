-- What Redis may have of %(user_id)s's jobs, a page behind %(after)s. %(limit)s.
SELECT job_id, thread_id, epoch, recent FROM {schema}.erasure_jobs
WHERE user_id = %(user_id)s AND job_id > %(after)s ORDER BY job_id LIMIT %(limit)s
