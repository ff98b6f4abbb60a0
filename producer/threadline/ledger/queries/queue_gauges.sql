-- The contract's gauges about the whole queue, in one pass over what is open; indexed, whatever the number of ended jobs.
-- %(lease_seconds)s. `queues` is a list of objects (queue, queued, running, interrupted, oldest, workers): of each queue that
-- anything is in or that a live worker serves.
WITH alive AS (
    SELECT coalesce(queues, ARRAY['default']) AS queues FROM {schema}.workers
    WHERE beat_at > clock_timestamp() - make_interval(secs => %(lease_seconds)s)
), open AS MATERIALIZED (
    SELECT queue, state, count(*) AS jobs, min(run_at) FILTER (WHERE state = 'queued' AND run_at <= now()) AS due
    FROM {schema}.jobs WHERE state IN ('queued', 'running') OR (state = 'interrupted' AND answered_by IS NULL)
    GROUP BY queue, state
), served AS (
    SELECT name AS queue, count(*) AS workers FROM alive, unnest(alive.queues) AS name GROUP BY name
), by_queue AS (
    SELECT queue,
        coalesce(sum(jobs) FILTER (WHERE state = 'queued'), 0) AS queued,
        coalesce(sum(jobs) FILTER (WHERE state = 'running'), 0) AS running,
        coalesce(sum(jobs) FILTER (WHERE state = 'interrupted'), 0) AS interrupted,
        coalesce(extract(epoch FROM clock_timestamp() - min(due)), 0)::float8 AS oldest,
        coalesce(max(workers), 0) AS workers
    FROM open FULL JOIN served USING (queue) GROUP BY queue
)
SELECT coalesce(sum(queued), 0)::bigint AS queued, coalesce(sum(running), 0)::bigint AS running,
    coalesce(sum(interrupted), 0)::bigint AS interrupted,
    coalesce(max(oldest), 0)::float8 AS oldest_queued_seconds,
    (SELECT count(*) FROM {schema}.webhooks WHERE state IN ('pending', 'held')) AS webhook_backlog,
    (SELECT count(*) FROM alive) AS workers,
    coalesce(json_agg(by_queue ORDER BY queue), '[]'::json) AS queues
FROM by_queue
