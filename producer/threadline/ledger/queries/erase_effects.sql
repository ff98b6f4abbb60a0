-- A batch of what tools did on %(user_id)s's threads. %(limit)s. `erased` is how many.
WITH gone AS (
    DELETE FROM {schema}.effects WHERE ctid = ANY (ARRAY(
        SELECT r.ctid FROM {schema}.effects AS r JOIN {schema}.threads AS t USING (thread_id)
        WHERE t.user_id = %(user_id)s LIMIT %(limit)s))
    RETURNING 1
)
SELECT count(*) AS erased FROM gone
