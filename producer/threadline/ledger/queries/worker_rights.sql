-- One row: whether a worker can write here. `missing` are rights of this role that no run can do without; the catalogue
-- is asked, so that nothing is locked or written.
WITH wanted AS (
    SELECT c.oid, n.nspname || '.' || c.relname AS name, r.need
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN unnest('{SELECT,INSERT,UPDATE}'::text[]) AS r (need)
    WHERE c.relkind IN ('r', 'p') AND (
        (n.nspname = '{schema}' AND c.relname IN ('threads', 'jobs', 'workers'))
        OR (n.nspname = '{checkpoints}'
            AND c.relname IN ('checkpoints', 'checkpoint_blobs', 'checkpoint_writes')))
), lacking AS (
    SELECT need || ' on ' || name AS lack FROM wanted WHERE NOT has_table_privilege(oid, need)
    UNION ALL
    SELECT 'EXECUTE on ' || p.oid::regprocedure FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = '{schema}' AND p.proname = 'assert_fence' AND NOT has_function_privilege(p.oid, 'EXECUTE')
)
SELECT current_user::text AS role, pg_is_in_recovery() AS in_recovery,
    current_setting('transaction_read_only')::boolean AS read_only,
    coalesce((SELECT array_agg(lack ORDER BY lack) FROM lacking), '{}') AS missing
