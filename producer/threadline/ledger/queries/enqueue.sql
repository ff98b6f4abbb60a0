-- L2: one row; see the function in schema/0001_ledger.sql.
SELECT * FROM {schema}.enqueue_job(%(job_id)s, %(thread_id)s, %(user_id)s, %(agent)s, %(input)s::json,
    %(options)s::json, %(metadata)s::json, %(idempotency_key)s, %(fingerprint)s, %(on_busy)s, %(run_at)s, %(expires)s,
    %(timeout)s, %(lease_seconds)s, %(text_input)s, %(dispatching)s)
