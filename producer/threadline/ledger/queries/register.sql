-- A worker lives, or lives again. %(worker_id)s, %(lock_key)s, %(version)s, %(agents)s, %(concurrency)s, %(queues)s.
-- The operations are those of threadline_worker.internal, which a test holds to this list (L9).
INSERT INTO {schema}.workers AS w (worker_id, lock_key, version, agents, concurrency, queues, operations)
VALUES (%(worker_id)s, %(lock_key)s, %(version)s, %(agents)s::jsonb, %(concurrency)s, %(queues)s::text[],
    ARRAY['compact', 'fork', 'history', 'state', 'update_state'])
ON CONFLICT (worker_id) DO UPDATE SET agents = excluded.agents, queues = excluded.queues, beat_at = clock_timestamp(), lock_ok = false
RETURNING worker_id, pg_is_in_recovery() AS in_recovery
