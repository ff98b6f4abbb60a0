-- These dead letters: %(messages)s (text[]). `erased` is how many.
WITH gone AS (DELETE FROM {schema}.dead_letters WHERE message_id = ANY (%(messages)s::text[]) RETURNING 1)
SELECT count(*) AS erased FROM gone
