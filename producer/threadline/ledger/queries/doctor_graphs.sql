-- Agents that live workers run in more than one form: name, and each fingerprint with the workers that have it.
-- %(lease_seconds)s.
SELECT name, json_object_agg(fingerprint, workers ORDER BY fingerprint) AS graphs
FROM (
    SELECT a.key AS name, a.value ->> 'fingerprint' AS fingerprint, json_agg(w.worker_id ORDER BY w.worker_id) AS workers
    FROM {schema}.workers AS w, jsonb_each(w.agents) AS a
    WHERE w.beat_at > clock_timestamp() - make_interval(secs => %(lease_seconds)s) AND a.value ? 'fingerprint'
    GROUP BY 1, 2
) AS found
GROUP BY name HAVING count(*) > 1 ORDER BY name
