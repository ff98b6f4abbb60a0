-- Who holds a lock in the schema for longest, if not this session: a migration may be waiting for it.
SELECT a.pid, coalesce(nullif(a.application_name, ''), 'no name') AS name, a.state,
    extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds
FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) JOIN pg_class AS c ON c.oid = l.relation
WHERE c.relnamespace = '{schema}'::regnamespace AND l.granted AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL
ORDER BY a.xact_start LIMIT 1
