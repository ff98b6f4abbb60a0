-- Redis, too, has nothing of %(user_id)s any more: the last place that has the id goes. %(counts)s are the final ones.
WITH gone AS (
    DELETE FROM {schema}.erasures WHERE user_id = %(user_id)s AND erased_at IS NOT NULL RETURNING audit_id
)
UPDATE {schema}.audit AS a SET finished_at = clock_timestamp(), counts = %(counts)s::jsonb FROM gone
WHERE a.id = gone.audit_id
RETURNING a.id
