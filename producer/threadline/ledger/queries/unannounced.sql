-- P1: transitions that nobody has published yet, older than %(seconds)s (their own worker is quicker). %(limit)s.
-- Not `queued` (epoch 0): whoever appends first puts it there.
SELECT job_id, kind, thread_id, agent, state, epoch, transition, transition_at, previous_worker, worker_id, code, message, result,
    interrupts, checkpoint_id, created_at, run_at, log_top,
    substring(options::text FROM '"traceparent"\s*:\s*"([0-9a-f-]{55})"') AS traceparent
FROM {schema}.jobs WHERE announced < epoch AND epoch > 0 AND transition_at < clock_timestamp() - make_interval(secs => %(seconds)s)
ORDER BY transition_at LIMIT %(limit)s
