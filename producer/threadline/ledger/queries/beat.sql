-- V1, L6: one statement a second whatever the number of jobs. %(worker_id)s. One row: `alive` false means that the
-- worker was declared dead; `owned` is [[job_id, epoch, cancel code | null, rollback], …] as the ledger has it.
WITH beaten AS (
    UPDATE {schema}.workers AS w SET beat = w.beat + 1, beat_at = clock_timestamp(), draining = %(draining)s,
        lock_ok = EXISTS (
            SELECT FROM pg_locks AS l WHERE l.locktype = 'advisory' AND l.granted AND l.pid = pg_backend_pid()
              AND l.objsubid = 1 AND ((l.classid::bigint << 32) | l.objid::bigint) = w.lock_key)
    WHERE w.worker_id = %(worker_id)s
    RETURNING w.lock_ok
)
SELECT EXISTS (SELECT FROM beaten) AS alive, (SELECT lock_ok FROM beaten) AS lock_ok,
    pg_is_in_recovery() AS in_recovery, extract(epoch FROM clock_timestamp())::float8 AS database_time,
    (SELECT coalesce(json_agg(json_build_array(j.job_id, j.epoch, c.code, c.rollback)), '[]'::json)
     FROM {schema}.jobs AS j LEFT JOIN {schema}.cancel_requests AS c USING (job_id)
     WHERE j.worker_id = %(worker_id)s AND j.state = 'running') AS owned
