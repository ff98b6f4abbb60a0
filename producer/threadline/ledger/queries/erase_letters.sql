-- Dead letters behind %(after)s, in order: message_id, body. %(limit)s. Whose they are stands in the body, if at all.
SELECT message_id, body FROM {schema}.dead_letters WHERE message_id > %(after)s ORDER BY message_id LIMIT %(limit)s
