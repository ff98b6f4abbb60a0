-- %(type)s and %(blob)s of the value %(thread_id)s, %(checkpoint_ns)s, %(channel)s, %(version)s, sealed for its place.
UPDATE {checkpoints}.checkpoint_blobs SET type = %(type)s, blob = %(blob)s
WHERE thread_id = %(thread_id)s AND checkpoint_ns = %(checkpoint_ns)s AND channel = %(channel)s
  AND version = %(version)s
