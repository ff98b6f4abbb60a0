-- %(thread_id)s. Result: user_id; no row if the thread is unknown.
SELECT user_id FROM {schema}.threads WHERE thread_id = %(thread_id)s
