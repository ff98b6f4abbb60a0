-- People in the loop: an answer is a job of its own in the asking job's place (O2). Expands only: 0.1.0 runs on it.

-- When a wait for a person ends as cancelled/expired; set where the job ends as `interrupted`.
ALTER TABLE {schema}.jobs ADD COLUMN wait_expires_at timestamptz;
CREATE INDEX jobs_wait_expires ON {schema}.jobs (wait_expires_at)
    WHERE state = 'interrupted' AND answered_by IS NULL AND wait_expires_at IS NOT NULL;
CREATE INDEX jobs_waiting ON {schema}.jobs (finished_at) WHERE state = 'interrupted' AND answered_by IS NULL;

-- One call, one row. p_user null: the caller is trusted. `outcome`: unknown_thread, owned_by_another, existing or
-- different (the idempotency key, see enqueue_job), not_waiting; asks: the thread waits with another job than p_asking,
-- which is `job_id`, and its questions are `interrupts`; created: p_answers, checked against the questions of p_asking by
-- the caller, is a job in its place. `head` as in enqueue_job. (The questions are not looked into here: SQL cannot read
-- JSON that has \u0000 in it.)
CREATE FUNCTION {schema}.resume_job(
    p_job text, p_thread text, p_user text, p_asking text, p_answers json, p_metadata json, p_key text,
    p_fingerprint text, p_dispatching boolean
) RETURNS TABLE (outcome text, job_id text, thread_id text, user_id text, agent text, state text, epoch bigint,
    dispatch_n int, head boolean, interrupts json)
LANGUAGE plpgsql AS $$
DECLARE
    v_owner text;
    v_asking {schema}.jobs;
    v_job {schema}.jobs;
    v_seq bigint;
BEGIN
    thread_id := p_thread;
    -- Answers to one thread come one after another: of two, the second finds nothing that waits.
    SELECT t.user_id INTO v_owner FROM {schema}.threads AS t WHERE t.thread_id = p_thread FOR UPDATE;
    IF NOT FOUND THEN
        outcome := 'unknown_thread'; RETURN NEXT; RETURN;
    ELSIF v_owner <> p_user THEN
        outcome := 'owned_by_another'; RETURN NEXT; RETURN;
    END IF;
    user_id := v_owner;

    SELECT * INTO v_job FROM {schema}.jobs AS j WHERE j.user_id = v_owner AND j.idempotency_key = p_key;
    IF FOUND THEN
        RETURN QUERY SELECT CASE WHEN v_job.fingerprint = p_fingerprint THEN 'existing' ELSE 'different' END,
            v_job.job_id, v_job.thread_id, v_owner, v_job.agent, v_job.state, v_job.epoch, v_job.dispatch_n, false,
            NULL::json;
        RETURN;
    END IF;

    SELECT * INTO v_asking FROM {schema}.jobs AS j
    WHERE j.thread_id = p_thread AND j.state = 'interrupted' AND j.answered_by IS NULL
    ORDER BY j.turn, j.seq LIMIT 1 FOR UPDATE;
    IF NOT FOUND THEN
        outcome := 'not_waiting'; RETURN NEXT; RETURN;
    ELSIF v_asking.job_id IS DISTINCT FROM p_asking THEN
        outcome := 'asks'; job_id := v_asking.job_id; interrupts := coalesce(v_asking.interrupts, '[]');
        RETURN NEXT; RETURN;
    END IF;

    v_seq := nextval(pg_get_serial_sequence('{schema}.jobs', 'seq'));
    INSERT INTO {schema}.jobs AS j (job_id, seq, turn, thread_id, user_id, agent, kind, resumes, input, options, metadata,
        idempotency_key, fingerprint, timeout_seconds)
    OVERRIDING SYSTEM VALUE
    VALUES (p_job, v_seq, v_asking.turn, p_thread, v_owner, v_asking.agent, 'resume', v_asking.job_id, p_answers,
        v_asking.options, p_metadata, p_key, p_fingerprint, v_asking.timeout_seconds)
    ON CONFLICT DO NOTHING
    RETURNING j.* INTO v_job;
    IF NOT FOUND THEN
        -- The same key came first on another thread, in a transaction that has committed by now: look again.
        RETURN QUERY SELECT * FROM {schema}.resume_job(p_job, p_thread, p_user, p_asking, p_answers, p_metadata, p_key,
            p_fingerprint, p_dispatching);
        RETURN;
    END IF;
    UPDATE {schema}.jobs AS j SET answered_by = p_job WHERE j.job_id = v_asking.job_id;

    head := {schema}.is_head(v_job);
    IF head AND p_dispatching THEN
        UPDATE {schema}.jobs AS j SET dispatched_at = clock_timestamp(), dispatch_n = 1 WHERE j.job_id = p_job;
    ELSIF head THEN
        PERFORM pg_notify('{schema}', '');
    END IF;
    RETURN QUERY SELECT 'created', p_job, p_thread, v_owner, v_asking.agent, 'queued', 0::bigint, 1, head,
        NULL::json;
END $$;

-- An answer that is taken back (cancelled before it ran, or with a rollback) leaves its question open: the thread waits
-- again. One that was replaced by another job does not: that job goes on without the answer.
CREATE FUNCTION {schema}.reopen_question() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.code = 'requested' AND (NEW.started_at IS NULL OR EXISTS (
        SELECT FROM {schema}.cancel_requests AS c WHERE c.job_id = NEW.job_id AND c.rollback)) THEN
        UPDATE {schema}.jobs AS j SET answered_by = NULL WHERE j.job_id = NEW.resumes AND j.answered_by = NEW.job_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER jobs_reopen_question AFTER UPDATE OF state ON {schema}.jobs
    FOR EACH ROW WHEN (NEW.state = 'cancelled' AND OLD.state <> 'cancelled' AND NEW.kind = 'resume')
    EXECUTE FUNCTION {schema}.reopen_question();

-- L7, as in 0001; and an answer that was taken back is given again, unless another one has been given since, or the
-- question has ended without one (cancelled, expired).
CREATE OR REPLACE FUNCTION {schema}.retry_job(p_job text) RETURNS TABLE (outcome text, state text) LANGUAGE plpgsql AS $$
DECLARE
    v_job {schema}.jobs;
BEGIN
    PERFORM FROM {schema}.threads AS t JOIN {schema}.jobs AS j USING (thread_id) WHERE j.job_id = p_job FOR UPDATE OF t;
    SELECT * INTO v_job FROM {schema}.jobs AS j WHERE j.job_id = p_job FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF v_job.state NOT IN ('failed', 'cancelled') THEN
        RETURN QUERY SELECT 'not_ended', v_job.state;
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM {schema}.jobs AS later WHERE later.thread_id = v_job.thread_id
        AND (later.turn, later.seq) > (v_job.turn, v_job.seq) AND later.started_at IS NOT NULL) THEN
        RETURN QUERY SELECT 'moved_on', v_job.state;
        RETURN;
    END IF;
    -- Compared and set in one statement: it waits for a cancel of the question that is under way.
    UPDATE {schema}.jobs AS j SET answered_by = p_job
    WHERE j.job_id = v_job.resumes AND j.state = 'interrupted' AND coalesce(j.answered_by, p_job) = p_job;
    IF NOT FOUND AND EXISTS (SELECT FROM {schema}.jobs AS asking WHERE asking.job_id = v_job.resumes) THEN
        RETURN QUERY SELECT 'moved_on', v_job.state;
        RETURN;
    END IF;
    DELETE FROM {schema}.cancel_requests AS c WHERE c.job_id = p_job;
    UPDATE {schema}.jobs AS j SET state = 'queued', epoch = j.epoch + 1, transition = 'retry',
        transition_at = clock_timestamp(), failures = 0, stalls = 0, code = NULL, message = NULL, worker_id = NULL,
        finished_at = NULL, dispatched_at = NULL, run_at = clock_timestamp(), expires_at = NULL, running_seconds = 0,
        log_top = NULL
    WHERE j.job_id = p_job;
    PERFORM pg_notify('{schema}', '');
    RETURN QUERY SELECT 'retried', 'queued';
END $$;
