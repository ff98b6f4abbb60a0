-- F2: an effect that was marked as begun did not happen. The fence's four values, and %(key)s. Raises LF001.
SELECT {schema}.forget_effect(%(job_id)s, %(thread_id)s, %(epoch)s, %(worker_id)s, %(key)s)
