-- F2: what is known of an effect, before it begins; with %(mark)s it is marked as begun. The fence's four values, and
-- %(key)s. One row: outcome, result (JSON as text), begun_at, worker_id. Raises LF001.
SELECT outcome, result::text AS result, begun_at, worker_id FROM {schema}.begin_effect(
    %(job_id)s, %(thread_id)s, %(epoch)s, %(worker_id)s, %(key)s, %(mark)s)
