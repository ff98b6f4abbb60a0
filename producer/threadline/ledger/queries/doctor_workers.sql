-- All workers, those that beat within %(lease_seconds)s as alive; the newest beat first.
SELECT worker_id, draining, lock_ok, concurrency,
    coalesce((SELECT json_agg(name) FROM jsonb_object_keys(agents) AS name), '[]'::json) AS agents,
    extract(epoch FROM clock_timestamp() - beat_at)::float8 AS beat_age,
    beat_at > clock_timestamp() - make_interval(secs => %(lease_seconds)s) AS alive
FROM {schema}.workers ORDER BY beat_at DESC, worker_id
