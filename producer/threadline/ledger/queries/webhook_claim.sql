-- Takes due deliveries for %(lease)s seconds: at most %(limit)s, and of one host at most %(per_host)s together with
-- those that this worker has in flight: %(flying)s, their hosts, one entry each; %(busy)s, hosts that are full. Of the
-- 500 that are due longest, so that a backlog costs nobody much. A claim raises `claims`, which fences its outcome.
WITH due AS (
    SELECT job_id, epoch, host, next_at FROM {schema}.webhooks
    WHERE state IN ('pending', 'held') AND next_at <= now() AND host <> ALL (%(busy)s::text[])
    ORDER BY next_at LIMIT 500
), ranked AS (
    SELECT job_id, epoch, host, row_number() OVER (PARTITION BY host ORDER BY next_at) AS nth FROM due
), chosen AS (
    SELECT w.job_id, w.epoch FROM {schema}.webhooks AS w JOIN ranked AS r USING (job_id, epoch)
    WHERE w.state IN ('pending', 'held') AND w.next_at <= now()
      AND r.nth + (SELECT count(*) FROM unnest(%(flying)s::text[]) AS f (host) WHERE f.host = r.host) <= %(per_host)s
    ORDER BY w.next_at LIMIT %(limit)s FOR UPDATE OF w SKIP LOCKED
)
UPDATE {schema}.webhooks AS w SET state = 'pending', claims = w.claims + 1,
    next_at = clock_timestamp() + make_interval(secs => %(lease)s)
FROM chosen JOIN {schema}.jobs AS j USING (job_id) WHERE w.job_id = chosen.job_id AND w.epoch = chosen.epoch
RETURNING w.job_id, w.epoch, w.claims, w.attempts, w.url, w.host, w.payload::text AS payload, j.thread_id, j.agent,
    substring(j.options::text FROM '"traceparent"\s*:\s*"([0-9a-f-]{55})"') AS traceparent
