-- O4, T2: the thread is where it was; claims may go on. %(thread_id)s.
UPDATE {schema}.threads SET restoring = NULL WHERE thread_id = %(thread_id)s
