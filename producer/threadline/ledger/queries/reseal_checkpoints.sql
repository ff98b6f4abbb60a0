-- What a fork has copied, to be sealed for its new place. %(thread_id)s.
SELECT checkpoint_ns, checkpoint_id, checkpoint, metadata FROM {checkpoints}.checkpoints WHERE thread_id = %(thread_id)s
