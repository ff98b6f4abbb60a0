-- Of %(threads)s (text[]): jobs that are spent for %(seconds)s go, with their keys, requests, reports and effects, each
-- thread's oldest first. So a job that can be retried never outlives the one that shows that the thread moved on (L7).
-- `pruned` is how many.
WITH held AS (
    SELECT t.thread_id FROM {schema}.threads AS t
    WHERE t.thread_id = ANY (%(threads)s::text[]) AND t.restoring IS NULL
    ORDER BY t.thread_id FOR NO KEY UPDATE SKIP LOCKED
), doomed AS (
    SELECT j.job_id, j.thread_id, j.agent, j.seq, j.finished_at FROM {schema}.jobs AS j JOIN held USING (thread_id)
    WHERE j.kind <> 'internal' AND {schema}.is_spent(j, %(seconds)s)
      AND NOT EXISTS (SELECT FROM {schema}.jobs AS before
        WHERE before.thread_id = j.thread_id AND before.kind <> 'internal'
          AND (before.turn, before.seq) < (j.turn, j.seq) AND NOT {schema}.is_spent(before, %(seconds)s))
), effects AS (
    DELETE FROM {schema}.effects AS e USING doomed WHERE e.thread_id = doomed.thread_id AND e.job_id = doomed.job_id
), gone AS (
    DELETE FROM {schema}.jobs AS j USING doomed WHERE j.job_id = doomed.job_id AND NOT {schema}.is_open(j)
    RETURNING j.job_id
), noted AS (
    UPDATE {schema}.threads AS t SET agent = latest.agent, active_at = greatest(t.active_at, latest.finished_at)
    FROM (SELECT DISTINCT ON (thread_id) thread_id, agent, finished_at FROM doomed ORDER BY thread_id, seq DESC) AS latest
    WHERE t.thread_id = latest.thread_id
)
SELECT count(*) AS pruned FROM gone
