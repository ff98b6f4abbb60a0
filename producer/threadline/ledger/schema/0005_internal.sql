-- L9: what is done to a thread without running its graph (its past is read, forked or changed) is a job of kind
-- `internal`: same claim, same index, same fence, same rescue. Expands only: 0.1.0 runs on it.

-- The agent of a thread that has no job to tell it: a fork.
ALTER TABLE {schema}.threads ADD COLUMN agent text;
-- The internal operations that a worker knows. A worker of 0.1.0 knows none.
ALTER TABLE {schema}.workers ADD COLUMN operations text[] NOT NULL DEFAULT '{}';
CREATE INDEX jobs_internal ON {schema}.jobs (finished_at) WHERE kind = 'internal';

-- An internal job waits for a worker that knows its operation: whoever else claims it changes no row, which means not
-- claimed. A worker of an older release would run the graph with it.
CREATE FUNCTION {schema}.keep_internal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM {schema}.workers AS w
        WHERE w.worker_id = NEW.worker_id AND NEW.options ->> 'operation' = ANY (w.operations)) THEN
        RETURN NEW;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER jobs_keep_internal BEFORE UPDATE OF state ON {schema}.jobs
    FOR EACH ROW WHEN (NEW.kind = 'internal' AND NEW.state = 'running' AND OLD.state = 'queued')
    EXECUTE FUNCTION {schema}.keep_internal();

-- One call, one row. The operation is about p_thread and holds p_target: p_thread itself, or a new thread of the same
-- user (which p_taken says has checkpoints already). p_user null: the caller is trusted. p_agent null: that of the
-- thread's latest job. After p_seconds it does not start any more, nor run on.
-- `outcome`: created, unknown_thread, owned_by_another, no_agent, unknown_agent, busy (`job_id` holds the thread),
-- thread_taken, target_owned_by_another. `head` as in enqueue_job.
CREATE FUNCTION {schema}.internal_job(
    p_job text, p_operation text, p_thread text, p_target text, p_taken boolean, p_user text, p_agent text, p_input json,
    p_seconds double precision, p_lease_seconds double precision, p_dispatching boolean
) RETURNS TABLE (outcome text, job_id text, thread_id text, user_id text, agent text, state text, epoch bigint,
    dispatch_n int, head boolean)
LANGUAGE plpgsql AS $$
DECLARE
    v_thread {schema}.threads;
    v_target {schema}.threads;
    v_job {schema}.jobs;
BEGIN
    thread_id := p_thread;
    IF p_target = p_thread THEN
        -- A decision about "busy" must not race with an enqueue (see enqueue_job).
        SELECT * INTO v_thread FROM {schema}.threads AS t WHERE t.thread_id = p_thread FOR UPDATE;
    ELSE
        SELECT * INTO v_thread FROM {schema}.threads AS t WHERE t.thread_id = p_thread;
    END IF;
    IF NOT FOUND THEN
        outcome := 'unknown_thread'; RETURN NEXT; RETURN;
    ELSIF v_thread.user_id <> p_user THEN
        outcome := 'owned_by_another'; RETURN NEXT; RETURN;
    END IF;
    user_id := v_thread.user_id;

    agent := coalesce(p_agent, (SELECT j.agent FROM {schema}.jobs AS j
        WHERE j.thread_id = p_thread AND j.kind <> 'internal' ORDER BY j.seq DESC LIMIT 1), v_thread.agent);
    outcome := CASE WHEN agent IS NULL THEN 'no_agent' ELSE {schema}.agent_check(agent, p_lease_seconds, false) END;
    IF outcome IS NOT NULL THEN
        RETURN NEXT; RETURN;
    END IF;

    IF p_target = p_thread THEN
        SELECT * INTO v_job FROM {schema}.jobs AS j
        WHERE j.thread_id = p_thread AND {schema}.is_open(j) ORDER BY j.turn, j.seq LIMIT 1;
        IF FOUND THEN
            outcome := 'busy'; job_id := v_job.job_id; state := v_job.state; RETURN NEXT; RETURN;
        END IF;
    ELSE
        IF NOT p_taken THEN
            INSERT INTO {schema}.threads AS t (thread_id, user_id, agent) VALUES (p_target, v_thread.user_id, agent)
            ON CONFLICT DO NOTHING RETURNING * INTO v_target;
        END IF;
        IF v_target IS NULL THEN
            SELECT CASE WHEN t.user_id <> v_thread.user_id THEN 'target_owned_by_another' END INTO outcome
            FROM {schema}.threads AS t WHERE t.thread_id = p_target;
            outcome := coalesce(outcome, 'thread_taken'); thread_id := p_target; RETURN NEXT; RETURN;
        END IF;
    END IF;

    -- Nothing of the thread was open: the operation comes before whatever is enqueued from now on, also before an
    -- enqueue that has drawn its place already and waits for this transaction. So its turn is the first; for a retry
    -- of an earlier job (L7) it is then no later job of the thread, either.
    INSERT INTO {schema}.jobs AS j (job_id, turn, thread_id, user_id, agent, kind, input, options, fingerprint,
        expires_at, timeout_seconds, dispatched_at, dispatch_n)
    VALUES (p_job, 0, p_target, v_thread.user_id, internal_job.agent, 'internal', p_input,
        json_build_object('operation', p_operation, 'thread_id', p_thread), '',
        clock_timestamp() + make_interval(secs => p_seconds), p_seconds,
        CASE WHEN p_dispatching THEN clock_timestamp() END, CASE WHEN p_dispatching THEN 1 ELSE 0 END);
    IF NOT p_dispatching THEN
        PERFORM pg_notify('{schema}', '');
    END IF;
    RETURN QUERY SELECT 'created', p_job, p_target, v_thread.user_id, internal_job.agent, 'queued', 0::bigint, 1, true;
END $$;

-- The answer of an ended internal job was read: it goes, and with it the thread that was made for it alone. A fork's
-- thread stays once a worker may have filled it. True: it was there and had ended.
CREATE FUNCTION {schema}.forget_internal(p_job text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_job {schema}.jobs;
BEGIN
    DELETE FROM {schema}.jobs AS j
    WHERE j.job_id = p_job AND j.kind = 'internal' AND j.state IN ('succeeded', 'failed', 'cancelled')
    RETURNING j.* INTO v_job;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF v_job.options ->> 'thread_id' <> v_job.thread_id AND (v_job.options ->> 'operation' <> 'fork'
        OR v_job.started_at IS NULL OR v_job.code = 'invalid_input') THEN
        -- Locked first and looked at in a later statement, so that no enqueue on it is missed that was under way.
        PERFORM FROM {schema}.threads AS t WHERE t.thread_id = v_job.thread_id FOR UPDATE;
        DELETE FROM {schema}.threads AS t WHERE t.thread_id = v_job.thread_id
            AND NOT EXISTS (SELECT FROM {schema}.jobs AS j WHERE j.thread_id = t.thread_id);
    END IF;
    RETURN true;
END $$;
