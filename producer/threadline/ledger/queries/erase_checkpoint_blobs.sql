-- A batch of the rows of %(user_id)s's threads. %(limit)s. `erased` is how many.
WITH gone AS (
    DELETE FROM {checkpoints}.checkpoint_blobs WHERE ctid = ANY (ARRAY(
        SELECT r.ctid FROM {checkpoints}.checkpoint_blobs AS r JOIN {schema}.threads AS t USING (thread_id)
        WHERE t.user_id = %(user_id)s LIMIT %(limit)s))
    RETURNING 1
)
SELECT count(*) AS erased FROM gone
