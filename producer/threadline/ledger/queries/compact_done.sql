-- %(thread_id)s is compacted: parents that are gone are not named any more, and the thread is looked at again when it has
-- grown.
WITH orphans AS (
    UPDATE {checkpoints}.checkpoints AS k SET parent_checkpoint_id = NULL
    WHERE k.thread_id = %(thread_id)s AND k.parent_checkpoint_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM {checkpoints}.checkpoints AS p WHERE p.thread_id = k.thread_id
        AND p.checkpoint_ns = k.checkpoint_ns AND p.checkpoint_id = k.parent_checkpoint_id)
)
UPDATE {schema}.threads SET compacted = (SELECT max(k.checkpoint_id COLLATE "C") FROM {checkpoints}.checkpoints AS k
    WHERE k.thread_id = %(thread_id)s)
WHERE thread_id = %(thread_id)s
