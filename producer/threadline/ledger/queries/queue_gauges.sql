-- The contract's gauges about the whole queue; indexed, whatever the number of ended jobs. %(lease_seconds)s.
SELECT
    (SELECT count(*) FROM {schema}.jobs WHERE state = 'queued') AS queued,
    (SELECT count(*) FROM {schema}.jobs WHERE state = 'running') AS running,
    (SELECT count(*) FROM {schema}.jobs WHERE state = 'interrupted' AND answered_by IS NULL) AS interrupted,
    (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(run_at)), 0)::float8 FROM {schema}.jobs
     WHERE state = 'queued' AND run_at <= now()) AS oldest_queued_seconds,
    (SELECT count(*) FROM {schema}.webhooks WHERE state IN ('pending', 'held')) AS webhook_backlog,
    (SELECT count(*) FROM {schema}.workers
     WHERE beat_at > clock_timestamp() - make_interval(secs => %(lease_seconds)s)) AS workers
