-- O4, T2: pending writes of the heads and of all that was above them go; the saved ones come back after it.
-- %(thread_id)s, %(heads)s.
DELETE FROM {checkpoints}.checkpoint_writes AS w
WHERE w.thread_id = %(thread_id)s
  AND w.checkpoint_id COLLATE "C" >= coalesce(%(heads)s::jsonb ->> w.checkpoint_ns, '') COLLATE "C"
