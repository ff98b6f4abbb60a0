-- A batch of the jobs of %(user_id)s goes, and what belongs to them: from the commit on every write of theirs fails at the
-- fence. %(limit)s. `erased` is how many; `recent` the ids of those that somebody may still be running or following.
WITH doomed AS (
    SELECT j.job_id, j.thread_id, j.queue, j.epoch + 1 AS epoch,
        {schema}.is_open(j) OR j.transition_at > now() - interval '1 minute' AS recent
    FROM {schema}.jobs AS j WHERE j.user_id = %(user_id)s LIMIT %(limit)s FOR UPDATE
), noted AS (
    INSERT INTO {schema}.erasure_jobs (user_id, job_id, thread_id, queue, epoch, recent)
    SELECT %(user_id)s, job_id, thread_id, queue, epoch, recent FROM doomed ON CONFLICT DO NOTHING
), gone AS (
    DELETE FROM {schema}.jobs AS j USING doomed WHERE j.job_id = doomed.job_id
    RETURNING doomed.job_id, doomed.recent
)
SELECT count(*) AS erased, coalesce(array_agg(job_id) FILTER (WHERE recent), '{}') AS recent FROM gone
