-- L9: whether update_state of %(job_id)s on %(thread_id)s is committed: the checkpoint that it made.
SELECT checkpoint_id FROM {checkpoints}.checkpoints
WHERE thread_id = %(thread_id)s AND checkpoint_ns = '' AND metadata ->> 'update_id' = %(job_id)s
