-- Queues in which jobs are due or which a live worker (%(lease_seconds)s) serves: how many jobs are due, the workers' number.
WITH due AS (
    SELECT queue, count(*) AS due FROM {schema}.jobs WHERE state = 'queued' AND run_at <= now() GROUP BY queue
), served AS (
    SELECT name AS queue, count(*) AS workers FROM {schema}.workers, unnest(coalesce(queues, ARRAY['default'])) AS name
    WHERE beat_at > clock_timestamp() - make_interval(secs => %(lease_seconds)s) GROUP BY name
)
SELECT queue, coalesce(due, 0) AS due, coalesce(workers, 0) AS workers FROM due FULL JOIN served USING (queue)
ORDER BY queue
