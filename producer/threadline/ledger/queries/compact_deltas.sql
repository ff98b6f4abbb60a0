-- The channels of %(thread_id)s that were delta channels once, as far as checkpoints tell: checkpoint_ns, channel. A
-- snapshot is an inline `true` with a value behind it.
SELECT DISTINCT k.checkpoint_ns, c.channel FROM {checkpoints}.checkpoints AS k
CROSS JOIN LATERAL jsonb_object_keys(coalesce(k.metadata -> 'counters_since_delta_snapshot', '{}')) AS c (channel)
WHERE k.thread_id = %(thread_id)s
UNION
SELECT k.checkpoint_ns, v.key FROM {checkpoints}.checkpoints AS k
CROSS JOIN LATERAL jsonb_each(k.checkpoint -> 'channel_values') AS v
JOIN {checkpoints}.checkpoint_blobs AS b ON b.thread_id = k.thread_id AND b.checkpoint_ns = k.checkpoint_ns
    AND b.channel = v.key AND b.version = k.checkpoint -> 'channel_versions' ->> v.key
WHERE k.thread_id = %(thread_id)s AND v.value = 'true'::jsonb
