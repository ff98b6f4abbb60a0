-- O4, T2: values of namespaces that have no checkpoint any more. %(thread_id)s.
DELETE FROM {checkpoints}.checkpoint_blobs AS b
WHERE b.thread_id = %(thread_id)s AND NOT EXISTS (SELECT FROM {checkpoints}.checkpoints AS k
    WHERE k.thread_id = b.thread_id AND k.checkpoint_ns = b.checkpoint_ns)
