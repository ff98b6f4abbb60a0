-- The checkpoint that a claim goes on from, for its event. %(job_id)s, %(epoch)s, %(worker_id)s, %(checkpoint_id)s.
UPDATE {schema}.jobs SET checkpoint_id = %(checkpoint_id)s WHERE job_id = %(job_id)s AND epoch = %(epoch)s AND worker_id = %(worker_id)s AND state = 'running'
RETURNING job_id
