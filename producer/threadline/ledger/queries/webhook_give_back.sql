-- A worker on its way out: %(job_id)s, %(epoch)s, %(claims)s was cut off in the middle and is due again at once.
UPDATE {schema}.webhooks SET next_at = clock_timestamp()
WHERE job_id = %(job_id)s AND epoch = %(epoch)s AND claims = %(claims)s AND state = 'pending'
