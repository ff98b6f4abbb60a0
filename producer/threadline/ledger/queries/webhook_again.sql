-- The report of the latest end of %(job_id)s is due at once, with all its tries; whoever is at it now is fenced off.
UPDATE {schema}.webhooks AS w SET state = 'pending', claims = w.claims + 1, attempts = 0, status = NULL, answer = NULL,
    delivered_at = NULL, next_at = clock_timestamp()
WHERE w.job_id = %(job_id)s
  AND w.epoch = (SELECT max(latest.epoch) FROM {schema}.webhooks AS latest WHERE latest.job_id = %(job_id)s)
RETURNING w.epoch
