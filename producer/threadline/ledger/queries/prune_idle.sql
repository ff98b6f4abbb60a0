-- Threads behind %(after)s that are idle for %(seconds)s (see is_idle; %(waiting)s) and have grown since their last
-- compaction. %(limit)s.
SELECT t.thread_id FROM {schema}.threads AS t
WHERE t.thread_id > %(after)s AND {schema}.is_idle(t, %(seconds)s, %(waiting)s)
  AND EXISTS (SELECT FROM {checkpoints}.checkpoints AS k WHERE k.thread_id = t.thread_id)
  AND (t.compacted IS NULL OR t.compacted <> (SELECT max(k.checkpoint_id COLLATE "C")
      FROM {checkpoints}.checkpoints AS k WHERE k.thread_id = t.thread_id))
ORDER BY t.thread_id LIMIT %(limit)s
