-- L4: queued heads of the queues %(queues)s whose message should have been taken by now. %(seconds)s, %(limit)s of each queue:
-- what waits in one, however much, hides nothing in another. The caller looks into the queue.
SELECT late.* FROM unnest(%(queues)s::text[]) AS served (queue) CROSS JOIN LATERAL (
    SELECT j.job_id, j.epoch, j.dispatch_n, j.queue FROM {schema}.jobs AS j
    WHERE j.queue = served.queue AND j.state = 'queued' AND j.dispatched_at IS NOT NULL
      AND j.dispatched_at < clock_timestamp() - make_interval(secs => %(seconds)s) AND {schema}.is_head(j)
    ORDER BY j.dispatched_at LIMIT %(limit)s) AS late
