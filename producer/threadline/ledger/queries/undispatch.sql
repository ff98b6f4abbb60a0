-- %(job_id)s, %(dispatch_n)s: the message could not be sent, the sweep shall (L4).
UPDATE {schema}.jobs SET dispatched_at = NULL
WHERE job_id = %(job_id)s AND state = 'queued' AND dispatch_n = %(dispatch_n)s
