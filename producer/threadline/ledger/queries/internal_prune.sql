-- L9: answers that nobody has read for %(seconds)s go; at most %(limit)s. `forgotten` is how many; to be repeated
-- while it is %(limit)s.
SELECT count(*) FILTER (WHERE {schema}.forget_internal(stale.job_id)) AS forgotten FROM (
    SELECT j.job_id FROM {schema}.jobs AS j
    WHERE j.kind = 'internal' AND j.state IN ('succeeded', 'failed', 'cancelled')
      AND j.finished_at < now() - make_interval(secs => %(seconds)s)
    ORDER BY j.finished_at LIMIT %(limit)s FOR UPDATE OF j SKIP LOCKED
) AS stale
