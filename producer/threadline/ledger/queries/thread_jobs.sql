-- The jobs of %(thread_id)s that have begun to run, or ended without, in that order; %(since)s: only those with a
-- transition since then, null for all. While a job is neither, its place is not known: one that is not due is passed.
SELECT job_id, user_id, state, epoch, transition_at, seq, coalesce(started_at, finished_at) AS begun
FROM {schema}.jobs
WHERE thread_id = %(thread_id)s AND kind <> 'internal' AND coalesce(started_at, finished_at) IS NOT NULL
  AND (%(since)s::timestamptz IS NULL OR transition_at > %(since)s::timestamptz)
ORDER BY begun, seq
