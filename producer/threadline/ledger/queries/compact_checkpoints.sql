-- A batch of %(thread_id)s's checkpoints and their writes, the newest first, so that what is left can be read meanwhile.
-- Kept: the namespaces %(whole)s, and the pairs of %(namespaces)s and %(ids)s (text[]). %(limit)s.
WITH doomed AS (
    SELECT k.checkpoint_ns, k.checkpoint_id FROM {checkpoints}.checkpoints AS k
    WHERE k.thread_id = %(thread_id)s AND k.checkpoint_ns <> ALL (%(whole)s::text[])
      AND NOT EXISTS (SELECT FROM unnest(%(namespaces)s::text[], %(ids)s::text[]) AS kept (checkpoint_ns, checkpoint_id)
        WHERE kept.checkpoint_ns = k.checkpoint_ns AND kept.checkpoint_id = k.checkpoint_id)
    ORDER BY k.checkpoint_id COLLATE "C" DESC LIMIT %(limit)s
), writes AS (
    DELETE FROM {checkpoints}.checkpoint_writes AS w USING doomed
    WHERE w.thread_id = %(thread_id)s AND w.checkpoint_ns = doomed.checkpoint_ns AND w.checkpoint_id = doomed.checkpoint_id
    RETURNING 1
), checkpoints AS (
    DELETE FROM {checkpoints}.checkpoints AS k USING doomed
    WHERE k.thread_id = %(thread_id)s AND k.checkpoint_ns = doomed.checkpoint_ns AND k.checkpoint_id = doomed.checkpoint_id
    RETURNING 1
)
SELECT (SELECT count(*) FROM checkpoints) AS checkpoints, (SELECT count(*) FROM writes) AS checkpoint_writes
