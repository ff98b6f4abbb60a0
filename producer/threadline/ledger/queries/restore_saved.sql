-- O4, T2: the heads' pending writes as they were. %(thread_id)s, %(job_id)s.
INSERT INTO {checkpoints}.checkpoint_writes
    (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
SELECT %(thread_id)s, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
FROM {schema}.job_base_writes WHERE job_id = %(job_id)s
