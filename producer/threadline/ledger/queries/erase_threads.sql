-- The threads of %(user_id)s themselves, once nothing hangs on them: until then their ids stay the user's.
DELETE FROM {schema}.threads AS t
WHERE t.user_id = %(user_id)s AND NOT EXISTS (SELECT FROM {schema}.jobs AS j WHERE j.thread_id = t.thread_id)
RETURNING t.thread_id
