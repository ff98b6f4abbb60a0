-- A batch of the items of %(prefixes)s (text[]), with their vectors. %(limit)s. `erased` is how many.
WITH gone AS (
    DELETE FROM {schema}.store WHERE ctid = ANY (ARRAY(
        SELECT s.ctid FROM {schema}.store AS s WHERE s.prefix = ANY (%(prefixes)s::text[]) LIMIT %(limit)s))
    RETURNING 1
)
SELECT count(*) AS erased FROM gone
