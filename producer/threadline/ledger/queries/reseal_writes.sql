-- What a fork has copied, to be sealed for its new place. %(thread_id)s.
SELECT checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob FROM {checkpoints}.checkpoint_writes
WHERE thread_id = %(thread_id)s
