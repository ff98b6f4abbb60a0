-- Threads behind %(after)s that are idle for %(seconds)s (see is_idle; %(waiting)s). %(limit)s.
SELECT t.thread_id FROM {schema}.threads AS t
WHERE t.thread_id > %(after)s AND {schema}.is_idle(t, %(seconds)s, %(waiting)s)
ORDER BY t.thread_id LIMIT %(limit)s
