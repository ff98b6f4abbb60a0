-- What a fork has copied, to be sealed for its new place. %(thread_id)s.
SELECT checkpoint_ns, channel, version, type, blob FROM {checkpoints}.checkpoint_blobs
WHERE thread_id = %(thread_id)s AND type <> 'empty'
