-- The outcome of one try: %(job_id)s, %(epoch)s, %(claims)s name it; %(state)s is delivered, failed or pending (tried
-- again after %(delay)s seconds); %(status)s and %(answer)s are what came back. No row: another claim came since, and
-- its outcome counts.
UPDATE {schema}.webhooks SET state = %(state)s, attempts = attempts + 1, status = %(status)s, answer = %(answer)s,
    next_at = clock_timestamp() + make_interval(secs => %(delay)s),
    delivered_at = CASE WHEN %(state)s::text = 'delivered' THEN clock_timestamp() END
WHERE job_id = %(job_id)s AND epoch = %(epoch)s AND claims = %(claims)s AND state = 'pending'
RETURNING attempts
