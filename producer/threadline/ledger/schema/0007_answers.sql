-- R2: a person's answer waits for a worker that knows what to do with it. One of 0.1.0 gives answers that tasks have taken
-- once more, to their next question, and goes back to the asking job's `checkpoint_id`. Such a worker is one without
-- operations (0005).

-- As an error, which undoes all of the claim (an older release's saves the thread's heads in the same statement); as this
-- error, which every release takes for "not claimed".
CREATE FUNCTION {schema}.keep_answer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM {schema}.workers AS w WHERE w.worker_id = NEW.worker_id AND w.operations <> '{}') THEN
        RAISE EXCEPTION 'worker % is of a release that cannot give answers', NEW.worker_id
            USING ERRCODE = 'unique_violation', CONSTRAINT = 'jobs_one_running';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER jobs_keep_answer BEFORE UPDATE OF state ON {schema}.jobs
    FOR EACH ROW WHEN (NEW.kind = 'resume' AND NEW.state = 'running' AND OLD.state = 'queued')
    EXECUTE FUNCTION {schema}.keep_answer();

-- L8, as in 0001; and the thread, which the trigger of a rollback marks, is locked before its job, as everybody else does
-- (resume_job, enqueue_job, retry_job), or an answer at the same moment was a deadlock. What runs is only asked (F3).
CREATE OR REPLACE FUNCTION {schema}.cancel_job(p_job text, p_rollback boolean)
RETURNS TABLE (state text, thread_id text, changed boolean) LANGUAGE plpgsql AS $$
DECLARE
    v_job {schema}.jobs;
BEGIN
    IF p_rollback THEN
        PERFORM FROM {schema}.threads AS t JOIN {schema}.jobs AS j USING (thread_id)
        WHERE j.job_id = p_job AND j.state IN ('queued', 'interrupted') FOR NO KEY UPDATE OF t;
        -- First the request: the trigger reads from it that a rollback was asked for.
        INSERT INTO {schema}.cancel_requests AS c (job_id, code, rollback)
        SELECT j.job_id, 'requested', true FROM {schema}.jobs AS j WHERE j.job_id = p_job AND {schema}.is_open(j)
        ON CONFLICT (job_id) DO UPDATE SET rollback = true;
    END IF;
    UPDATE {schema}.jobs AS j SET state = 'cancelled', code = 'requested', epoch = j.epoch + 1, transition = 'cancel',
        transition_at = clock_timestamp(), finished_at = clock_timestamp(), worker_id = NULL
    WHERE j.job_id = p_job AND (j.state = 'queued' OR (j.state = 'interrupted' AND j.answered_by IS NULL))
    RETURNING j.* INTO v_job;
    IF FOUND THEN
        PERFORM pg_notify('{schema}', '');
        RETURN QUERY SELECT v_job.state, v_job.thread_id, true;
        RETURN;
    END IF;
    SELECT * INTO v_job FROM {schema}.jobs AS j WHERE j.job_id = p_job;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF v_job.state IN ('running', 'queued') THEN
        INSERT INTO {schema}.cancel_requests AS c (job_id, code, rollback) VALUES (p_job, 'requested', p_rollback)
        ON CONFLICT (job_id) DO UPDATE SET rollback = c.rollback OR excluded.rollback;
        PERFORM pg_notify('{schema}', '');
    END IF;
    RETURN QUERY SELECT v_job.state, v_job.thread_id, v_job.state IN ('running', 'queued');
END $$;
