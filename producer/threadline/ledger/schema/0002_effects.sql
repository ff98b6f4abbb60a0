-- F2, R3: what tools did outside their checkpoints, kept under the run's fence: a step that runs again gets the stored
-- result. Found by (thread, key), because a job that answers a person's question goes on with the same step.

CREATE TABLE {schema}.effects (
    thread_id  text NOT NULL REFERENCES {schema}.threads ON DELETE CASCADE,
    key        text NOT NULL,
    -- who wrote the row last; jobs may be pruned before their thread, so this refers to none
    job_id     text NOT NULL,
    epoch      bigint NOT NULL,
    worker_id  text NOT NULL,
    begun_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- null: somebody began, and nobody knows whether it was done
    done_at    timestamptz,
    result     json,
    PRIMARY KEY (thread_id, key)
);

-- Before an effect. One row: outcome new | done | in_doubt, and what is stored. With p_mark the row stands before the
-- effect begins, so that a death in the middle is seen. The fence is last (F1).
CREATE FUNCTION {schema}.begin_effect(
    p_job text, p_thread text, p_epoch bigint, p_worker text, p_key text, p_mark boolean
) RETURNS TABLE (outcome text, result json, begun_at timestamptz, worker_id text) LANGUAGE plpgsql AS $$
DECLARE
    v_effect {schema}.effects;
    v_new boolean := true;
BEGIN
    IF p_mark THEN
        INSERT INTO {schema}.effects AS e (thread_id, key, job_id, epoch, worker_id)
        VALUES (p_thread, p_key, p_job, p_epoch, p_worker) ON CONFLICT DO NOTHING;
        v_new := FOUND;
    END IF;
    SELECT * INTO v_effect FROM {schema}.effects AS e WHERE e.thread_id = p_thread AND e.key = p_key;
    PERFORM {schema}.assert_fence(p_job, p_thread, p_epoch, p_worker);
    RETURN QUERY SELECT
        CASE WHEN v_effect.done_at IS NOT NULL THEN 'done' WHEN p_mark AND NOT v_new THEN 'in_doubt' ELSE 'new' END,
        v_effect.result, v_effect.begun_at, v_effect.worker_id;
END $$;

-- After an effect: its result, or the one that is stored already. The fence is last (F1).
CREATE FUNCTION {schema}.finish_effect(
    p_job text, p_thread text, p_epoch bigint, p_worker text, p_key text, p_result json
) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    v_result json;
BEGIN
    INSERT INTO {schema}.effects AS e (thread_id, key, job_id, epoch, worker_id, done_at, result)
    VALUES (p_thread, p_key, p_job, p_epoch, p_worker, clock_timestamp(), p_result)
    ON CONFLICT (thread_id, key) DO UPDATE SET job_id = excluded.job_id, epoch = excluded.epoch,
        worker_id = excluded.worker_id, done_at = excluded.done_at, result = excluded.result
    WHERE e.done_at IS NULL;
    SELECT e.result INTO v_result FROM {schema}.effects AS e WHERE e.thread_id = p_thread AND e.key = p_key;
    PERFORM {schema}.assert_fence(p_job, p_thread, p_epoch, p_worker);
    RETURN v_result;
END $$;

-- The effect did not happen, says the tool: the mark goes. The fence is last (F1).
CREATE FUNCTION {schema}.forget_effect(
    p_job text, p_thread text, p_epoch bigint, p_worker text, p_key text
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM {schema}.effects AS e WHERE e.thread_id = p_thread AND e.key = p_key AND e.done_at IS NULL;
    PERFORM {schema}.assert_fence(p_job, p_thread, p_epoch, p_worker);
END $$;
