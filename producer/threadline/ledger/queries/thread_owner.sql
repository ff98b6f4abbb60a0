-- %(thread_id)s. Result: user_id; no row if there is no such thread yet.
SELECT user_id FROM {schema}.threads WHERE thread_id = %(thread_id)s
