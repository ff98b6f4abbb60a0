-- The locked %(thread_id)s goes with all that it has, if it is idle for %(seconds)s (%(waiting)s) and owes no report.
-- `pruned` is 1 then. What a worker still writes to it fails at the fence, which finds no job.
WITH idle AS (
    SELECT t.thread_id FROM {schema}.threads AS t
    WHERE t.thread_id = %(thread_id)s AND {schema}.is_idle(t, %(seconds)s, %(waiting)s)
      AND NOT EXISTS (SELECT FROM {schema}.webhooks AS w JOIN {schema}.jobs AS j USING (job_id)
        WHERE j.thread_id = t.thread_id AND w.state IN ('pending', 'held'))
), writes AS (
    DELETE FROM {checkpoints}.checkpoint_writes AS r USING idle WHERE r.thread_id = idle.thread_id
), blobs AS (
    DELETE FROM {checkpoints}.checkpoint_blobs AS r USING idle WHERE r.thread_id = idle.thread_id
), checkpoints AS (
    DELETE FROM {checkpoints}.checkpoints AS r USING idle WHERE r.thread_id = idle.thread_id
), jobs AS (
    DELETE FROM {schema}.jobs AS r USING idle WHERE r.thread_id = idle.thread_id
), gone AS (
    DELETE FROM {schema}.threads AS t USING idle WHERE t.thread_id = idle.thread_id RETURNING 1
)
SELECT count(*) AS pruned FROM gone
