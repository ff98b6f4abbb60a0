-- A batch of dead letters older than %(seconds)s. %(limit)s. `pruned` is how many.
WITH gone AS (
    DELETE FROM {schema}.dead_letters WHERE message_id IN (
        SELECT message_id FROM {schema}.dead_letters
        WHERE received_at < now() - make_interval(secs => %(seconds)s) LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
    RETURNING 1
)
SELECT count(*) AS pruned FROM gone
