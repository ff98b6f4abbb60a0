-- %(lease_seconds)s. Result: the names that live workers run.
SELECT DISTINCT jsonb_object_keys(agents) AS name FROM {schema}.workers
WHERE beat_at > clock_timestamp() - make_interval(secs => %(lease_seconds)s) ORDER BY 1
