-- V2, V3: what a rescuer looks at. `lock_free` is true when no session holds the worker's advisory lock; `serves_ours` if it
-- serves all queues that %(worker_id)s does.
SELECT w.worker_id, w.lock_key, w.beat, w.lock_ok,
    NOT EXISTS (SELECT FROM pg_locks AS l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND ((l.classid::bigint << 32) | l.objid::bigint) = w.lock_key
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS lock_free,
    coalesce(coalesce(w.queues, ARRAY['default']) @> (SELECT own.queues FROM {schema}.workers AS own
        WHERE own.worker_id = %(worker_id)s), true) AS serves_ours
FROM {schema}.workers AS w WHERE w.worker_id <> %(worker_id)s
