-- Erasures that nobody has worked on for %(seconds)s: user_id. %(limit)s.
SELECT user_id FROM {schema}.erasures WHERE worked_at < clock_timestamp() - make_interval(secs => %(seconds)s)
ORDER BY worked_at LIMIT %(limit)s
