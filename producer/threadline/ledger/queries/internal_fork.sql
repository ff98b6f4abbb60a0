-- L9: copies %(source)s up to %(checkpoint_id)s (null: its head) into the new thread %(thread_id)s: every namespace's
-- checkpoints up to it, their values, and the pending writes of those before it. The chosen one's own pending writes
-- belong to the step behind it. One statement, so one snapshot: the source may run. What is there already stays: a
-- worker that died behind its commit has done it all.
-- Result: the new thread's head, null where the source has no such checkpoint; `copied`: by this call.
WITH present AS (
    SELECT max(k.checkpoint_id COLLATE "C") AS head FROM {checkpoints}.checkpoints AS k
    WHERE k.thread_id = %(thread_id)s AND k.checkpoint_ns = ''
), chosen AS (
    SELECT max(k.checkpoint_id COLLATE "C") AS id FROM {checkpoints}.checkpoints AS k, present
    WHERE k.thread_id = %(source)s AND k.checkpoint_ns = '' AND present.head IS NULL
      AND (%(checkpoint_id)s::text IS NULL OR k.checkpoint_id = %(checkpoint_id)s::text)
), kept AS (
    SELECT k.checkpoint_ns, k.checkpoint_id, k.parent_checkpoint_id, k.type, k.checkpoint, k.metadata
    FROM {checkpoints}.checkpoints AS k, chosen
    WHERE k.thread_id = %(source)s AND k.checkpoint_id COLLATE "C" <= chosen.id
), checkpoints AS (
    INSERT INTO {checkpoints}.checkpoints
        (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
    SELECT %(thread_id)s, kept.* FROM kept
), blobs AS (
    INSERT INTO {checkpoints}.checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    SELECT %(thread_id)s, b.checkpoint_ns, b.channel, b.version, b.type, b.blob
    FROM {checkpoints}.checkpoint_blobs AS b
    WHERE b.thread_id = %(source)s AND (b.checkpoint_ns, b.channel, b.version) IN (
        SELECT kept.checkpoint_ns, v.key, v.value
        FROM kept CROSS JOIN LATERAL jsonb_each_text(kept.checkpoint -> 'channel_versions') AS v)
), writes AS (
    INSERT INTO {checkpoints}.checkpoint_writes
        (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    SELECT %(thread_id)s, w.checkpoint_ns, w.checkpoint_id, w.task_id, w.task_path, w.idx, w.channel, w.type, w.blob
    FROM {checkpoints}.checkpoint_writes AS w, chosen
    WHERE w.thread_id = %(source)s AND w.checkpoint_id COLLATE "C" < chosen.id
)
SELECT coalesce(present.head, chosen.id) AS checkpoint_id, present.head IS NULL AS copied FROM present, chosen
