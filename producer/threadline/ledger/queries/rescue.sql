-- L1, L6, L7, L8: the running jobs of %(worker_id)s (or, if null, of workers that have no row) go back to the queue.
-- %(silent_since)s is the last beat. Progress is a checkpoint of any namespace newer than at the claim; %(limit)s stalls without one end the job.
WITH target AS (
    SELECT j.job_id, j.epoch, c.code AS cancel, coalesce((SELECT max(k.checkpoint_id) FROM {checkpoints}.checkpoints AS k
        WHERE k.thread_id = j.thread_id) > coalesce(j.newest_at_claim, ''), false) AS progressed
    FROM {schema}.jobs AS j LEFT JOIN {schema}.cancel_requests AS c USING (job_id)
    WHERE j.state = 'running' AND (j.worker_id = %(worker_id)s::text OR (%(worker_id)s::text IS NULL AND NOT EXISTS
        (SELECT FROM {schema}.workers AS w WHERE w.worker_id = j.worker_id)))
    FOR UPDATE OF j SKIP LOCKED
)
UPDATE {schema}.jobs AS j SET
    state = CASE WHEN target.cancel IS NOT NULL THEN 'cancelled'
        WHEN NOT target.progressed AND j.stalls + 1 >= %(limit)s THEN 'failed' ELSE 'queued' END,
    code = CASE WHEN target.cancel IS NOT NULL THEN target.cancel
        WHEN NOT target.progressed AND j.stalls + 1 >= %(limit)s THEN 'poisoned' ELSE 'dead_worker' END,
    message = CASE WHEN target.cancel IS NULL AND NOT target.progressed AND j.stalls + 1 >= %(limit)s
        THEN 'its worker died ' || (j.stalls + 1) || ' times without a checkpoint in between' END,
    stalls = CASE WHEN target.progressed THEN 0 ELSE j.stalls + 1 END,
    finished_at = CASE WHEN target.cancel IS NOT NULL OR (NOT target.progressed AND j.stalls + 1 >= %(limit)s)
        THEN clock_timestamp() END,
    epoch = j.epoch + 1, transition = 'rescue', transition_at = clock_timestamp(),
    previous_worker = j.worker_id, worker_id = NULL, dispatched_at = NULL, run_at = clock_timestamp(),
    silent_since = coalesce(%(silent_since)s, clock_timestamp()), log_top = NULL,
    running_seconds = j.running_seconds + extract(epoch FROM clock_timestamp() - j.claimed_at)
FROM target WHERE j.job_id = target.job_id AND j.epoch = target.epoch
RETURNING j.job_id, j.kind, j.thread_id, j.agent, j.state, j.epoch, j.transition, j.transition_at, j.previous_worker, j.worker_id,
    j.code, j.message, j.result, j.interrupts, j.checkpoint_id, j.run_at, j.log_top, j.stalls, target.progressed,
    j.created_at, j.claimed_at, j.options, j.resumes
