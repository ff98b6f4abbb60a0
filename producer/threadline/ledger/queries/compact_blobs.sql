-- A batch of %(thread_id)s's values that no checkpoint has any more. %(limit)s.
WITH used AS MATERIALIZED (
    SELECT DISTINCT k.checkpoint_ns, v.key AS channel, v.value AS version FROM {checkpoints}.checkpoints AS k
    CROSS JOIN LATERAL jsonb_each_text(k.checkpoint -> 'channel_versions') AS v
    WHERE k.thread_id = %(thread_id)s
), gone AS (
    DELETE FROM {checkpoints}.checkpoint_blobs WHERE ctid = ANY (ARRAY(
        SELECT b.ctid FROM {checkpoints}.checkpoint_blobs AS b
        WHERE b.thread_id = %(thread_id)s AND NOT EXISTS (SELECT FROM used
            WHERE used.checkpoint_ns = b.checkpoint_ns AND used.channel = b.channel AND used.version = b.version)
        LIMIT %(limit)s))
    RETURNING 1
)
SELECT count(*) AS checkpoint_blobs FROM gone
