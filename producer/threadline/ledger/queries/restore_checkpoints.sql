-- O4, T2: what the job committed above the heads goes. %(thread_id)s, %(heads)s.
DELETE FROM {checkpoints}.checkpoints AS k
WHERE k.thread_id = %(thread_id)s
  AND k.checkpoint_id COLLATE "C" > coalesce(%(heads)s::jsonb ->> k.checkpoint_ns, '') COLLATE "C"
