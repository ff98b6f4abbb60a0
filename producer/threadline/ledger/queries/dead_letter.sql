-- A message that can never become a job. %(message_id)s, %(reason)s, %(body)s.
INSERT INTO {schema}.dead_letters (message_id, reason, body) VALUES (%(message_id)s, %(reason)s, %(body)s)
ON CONFLICT (message_id) DO UPDATE SET reason = excluded.reason
