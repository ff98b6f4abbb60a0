-- Which session holds the advisory lock %(key)s; no row: none does any more.
SELECT a.pid, coalesce(nullif(a.application_name, ''), 'no name') AS name,
    extract(epoch FROM clock_timestamp() - a.backend_start)::float8 AS seconds
FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND ((l.classid::bigint << 32) | l.objid::bigint) = %(key)s
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
