-- %(type)s and %(blob)s of the write %(thread_id)s, %(checkpoint_ns)s, %(checkpoint_id)s, %(task_id)s, %(idx)s, sealed for
-- its place.
UPDATE {checkpoints}.checkpoint_writes SET type = %(type)s, blob = %(blob)s
WHERE thread_id = %(thread_id)s AND checkpoint_ns = %(checkpoint_ns)s AND checkpoint_id = %(checkpoint_id)s
  AND task_id = %(task_id)s AND idx = %(idx)s
