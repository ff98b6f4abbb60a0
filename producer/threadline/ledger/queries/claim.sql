-- L1, L6, F5, O1: %(job_id)s, %(worker_id)s, %(lease_seconds)s. The row after the claim: `running`, or ended because a cancel was pending
-- (L8) or `expires` had passed. No row: not claimed (another has it, not its turn, not due, this worker is not known
-- or does not serve the queue).
WITH target AS (
    SELECT j.job_id, j.thread_id, j.turn, c.code AS cancel,
        coalesce(j.started_at IS NULL AND j.expires_at <= clock_timestamp(), false) AS expired,
        (SELECT max(k.checkpoint_id) FROM {checkpoints}.checkpoints AS k WHERE k.thread_id = j.thread_id) AS newest,
        -- O4: only before its first write is the thread where a rollback shall bring it back to
        -- (an end at the claim writes nothing: a retry of the job shall find the thread as it is then)
        j.started_at IS NULL AND j.kind <> 'internal' AND c.job_id IS NULL
            AND coalesce(j.expires_at > clock_timestamp(), true) AS first
    FROM {schema}.jobs AS j
    JOIN {schema}.threads AS t USING (thread_id)
    LEFT JOIN {schema}.cancel_requests AS c USING (job_id)
    WHERE j.job_id = %(job_id)s AND j.state = 'queued' AND j.run_at <= now() AND t.restoring IS NULL
      AND {schema}.is_head(j) AND NOT pg_is_in_recovery()
      AND EXISTS (SELECT FROM {schema}.workers AS w WHERE w.worker_id = %(worker_id)s AND NOT w.draining
        AND j.queue = ANY (coalesce(w.queues, ARRAY['default']))
        -- a worker that lacks the agent leaves the job to a living one of the queue that has it
        AND (w.agents ? j.agent OR NOT EXISTS (SELECT FROM {schema}.workers AS other WHERE other.agents ? j.agent
            AND j.queue = ANY (coalesce(other.queues, ARRAY['default']))
            AND other.beat_at > clock_timestamp() - make_interval(secs => %(lease_seconds)s)))
        -- so does one whose graph has lost what the thread needs (leave_to.sql)
        AND (j.needs_fingerprint IS NULL OR w.agents -> j.agent ->> 'fingerprint' = j.needs_fingerprint
            OR NOT EXISTS (SELECT FROM {schema}.workers AS other
                WHERE other.agents -> j.agent ->> 'fingerprint' = j.needs_fingerprint AND NOT other.draining
                  AND j.queue = ANY (coalesce(other.queues, ARRAY['default']))
                  AND other.beat_at > clock_timestamp() - make_interval(secs => %(lease_seconds)s))))
    -- the thread is shared: a retry of an earlier job locks it, and looks only then whether a later one has started
    FOR UPDATE OF j SKIP LOCKED FOR SHARE OF t SKIP LOCKED
), heads AS (
    SELECT target.job_id, target.thread_id, k.checkpoint_ns, max(k.checkpoint_id) AS checkpoint_id
    FROM target JOIN {checkpoints}.checkpoints AS k USING (thread_id)
    WHERE target.first GROUP BY target.job_id, target.thread_id, k.checkpoint_ns
), forgotten AS (
    -- not those of the jobs that an answer goes on with: taken back it leaves them waiting, to be rolled back in their turn
    DELETE FROM {schema}.job_bases USING target
    WHERE job_bases.thread_id = target.thread_id AND job_bases.job_id <> target.job_id AND target.first
      AND NOT EXISTS (SELECT FROM {schema}.jobs AS asking
        WHERE asking.job_id = job_bases.job_id AND asking.turn = target.turn)
), base AS (
    INSERT INTO {schema}.job_bases (job_id, thread_id, heads)
    SELECT target.job_id, target.thread_id,
        coalesce((SELECT jsonb_object_agg(heads.checkpoint_ns, heads.checkpoint_id) FROM heads), '{}')
    FROM target WHERE target.first
), base_writes AS (
    INSERT INTO {schema}.job_base_writes (job_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    SELECT heads.job_id, w.checkpoint_ns, w.checkpoint_id, w.task_id, w.task_path, w.idx, w.channel, w.type, w.blob
    FROM heads JOIN {checkpoints}.checkpoint_writes AS w USING (thread_id, checkpoint_ns, checkpoint_id)
)
UPDATE {schema}.jobs AS j SET
    state = CASE WHEN target.cancel IS NOT NULL THEN 'cancelled' WHEN target.expired THEN 'failed' ELSE 'running' END,
    code = CASE WHEN target.cancel IS NOT NULL THEN target.cancel WHEN target.expired THEN 'expired' END,
    message = CASE WHEN target.cancel IS NULL AND target.expired THEN 'the job was not started in time' END,
    epoch = j.epoch + 1,
    transition = CASE WHEN target.cancel IS NOT NULL THEN 'cancel' WHEN target.expired THEN 'expire' ELSE 'claim' END,
    transition_at = clock_timestamp(), claimed_at = clock_timestamp(),
    worker_id = %(worker_id)s, log_top = NULL, newest_at_claim = target.newest, checkpoint_id = NULL,
    -- a claim's own worker publishes its event; an end is published by whoever comes first
    announced = CASE WHEN target.cancel IS NULL AND NOT target.expired THEN j.epoch + 1
        ELSE j.announced END,
    started_at = CASE WHEN target.cancel IS NULL AND NOT target.expired
        THEN coalesce(j.started_at, clock_timestamp()) ELSE j.started_at END,
    finished_at = CASE WHEN target.cancel IS NOT NULL OR target.expired THEN clock_timestamp() END
FROM target WHERE j.job_id = target.job_id
RETURNING j.job_id, j.thread_id, j.user_id, j.agent, j.kind, j.input, j.options, j.metadata, j.state, j.epoch,
    j.failures, j.stalls, j.timeout_seconds, j.running_seconds, j.previous_worker, j.created_at, j.resumes,
    extract(epoch FROM clock_timestamp() - j.created_at)::float8 AS waited_seconds,
    extract(epoch FROM clock_timestamp() - j.silent_since)::float8 AS pickup_seconds, j.newest_at_claim,
    j.transition, j.transition_at, j.code, j.message, j.result, j.interrupts, j.worker_id, j.checkpoint_id, j.run_at, j.log_top,
    -- the graph that the thread was left with: an answer goes on in the asking job's
    coalesce(j.agent_fingerprint, (SELECT asking.agent_fingerprint FROM {schema}.jobs AS asking WHERE asking.job_id = j.resumes))
        AS agent_fingerprint
