-- From the commit on nothing new of %(user_id)s is taken. %(names)s are the user's names in the store.
SELECT {schema}.begin_erasure(%(user_id)s, %(names)s::text[])
