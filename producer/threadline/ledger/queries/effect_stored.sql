-- F2: the result of an effect that was done, JSON as text. %(thread_id)s, %(key)s. A row or none; it takes no lock,
-- because the fence is to be last (F1).
SELECT result::text AS result FROM {schema}.effects
WHERE thread_id = %(thread_id)s AND key = %(key)s AND done_at IS NOT NULL
