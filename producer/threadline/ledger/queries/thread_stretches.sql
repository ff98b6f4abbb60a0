-- What there is to tell of %(thread_id)s, in its order (schema/0006_stretches.sql); %(since)s: only of jobs with a transition
-- since then, null for all. `first` and `last` are the stretch's epochs; `last` is null while it goes on.
SELECT s.n, s.job_id, j.user_id, j.epoch, j.transition_at, s.epoch AS first,
    coalesce(lead(s.epoch) OVER (PARTITION BY s.job_id ORDER BY s.n) - 1,
        CASE WHEN j.state IN ('succeeded', 'failed', 'cancelled', 'interrupted') THEN j.epoch
             WHEN j.state = 'queued' AND j.transition = 'retry' THEN j.epoch - 1 END) AS last
FROM {schema}.stretches AS s JOIN {schema}.jobs AS j USING (job_id)
WHERE s.thread_id = %(thread_id)s
  AND (%(since)s::timestamptz IS NULL OR j.transition_at > %(since)s::timestamptz)
ORDER BY s.n
