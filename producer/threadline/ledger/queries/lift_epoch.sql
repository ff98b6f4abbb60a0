-- P3: the log is ahead of the ledger (a restored backup): %(above)s is the log's epoch. No row: no longer ours.
UPDATE {schema}.jobs SET epoch = %(above)s + 1 WHERE job_id = %(job_id)s AND epoch = %(epoch)s AND worker_id = %(worker_id)s AND state = 'running'
RETURNING epoch
