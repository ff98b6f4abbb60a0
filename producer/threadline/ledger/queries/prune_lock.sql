-- %(thread_id)s for this transaction alone: no enqueue is under way on it, and none begins. No row: somebody is at it.
SELECT t.thread_id FROM {schema}.threads AS t
WHERE t.thread_id = %(thread_id)s AND pg_try_advisory_xact_lock({schema}.user_lock(t.user_id))
FOR UPDATE SKIP LOCKED
