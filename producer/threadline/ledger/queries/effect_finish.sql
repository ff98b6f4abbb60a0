-- F2: an effect's result %(result)s, JSON. The fence's four values, and %(key)s. One row: the result that is stored now,
-- as text. Raises LF001.
SELECT {schema}.finish_effect(
    %(job_id)s, %(thread_id)s, %(epoch)s, %(worker_id)s, %(key)s, %(result)s::json)::text AS result
