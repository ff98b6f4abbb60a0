-- Postgres has nothing of %(user_id)s any more: an audit line, once, with %(subject)s and %(counts)s; what is enqueued from
-- now on is new.
WITH noted AS (
    INSERT INTO {schema}.audit (event, subject, counts)
    VALUES ('user_deleted', %(subject)s, %(counts)s::jsonb) RETURNING id
)
UPDATE {schema}.erasures SET erased_at = clock_timestamp(), audit_id = (SELECT id FROM noted)
WHERE user_id = %(user_id)s AND erased_at IS NULL
RETURNING audit_id
