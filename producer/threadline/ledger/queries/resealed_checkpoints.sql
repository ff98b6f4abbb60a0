-- %(metadata)s of the checkpoint %(thread_id)s, %(checkpoint_ns)s, %(checkpoint_id)s, sealed for its place.
UPDATE {checkpoints}.checkpoints SET metadata = %(metadata)s
WHERE thread_id = %(thread_id)s AND checkpoint_ns = %(checkpoint_ns)s AND checkpoint_id = %(checkpoint_id)s
