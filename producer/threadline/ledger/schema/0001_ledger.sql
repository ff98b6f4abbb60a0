-- The ledger: threads, jobs, workers, cancel requests, dead letters. A job exists once its row is committed (design.md).
-- {schema} is the namespace. Times are this server's. JSON that SQL never looks into is json, not jsonb: it keeps key
-- order and takes the escape \u0000.

CREATE TABLE {schema}.threads (
    thread_id   text PRIMARY KEY,
    user_id     text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- O4: the job whose rollback is half done; no claims while it is set
    restoring   text
);
CREATE INDEX threads_restoring ON {schema}.threads (thread_id) WHERE restoring IS NOT NULL;
CREATE INDEX threads_user ON {schema}.threads (user_id);

CREATE TABLE {schema}.jobs (
    job_id          text PRIMARY KEY,
    seq             bigint GENERATED ALWAYS AS IDENTITY,
    -- the place in the thread's order: its own seq, or for a resume job that of the job it goes on with (O1, O2)
    turn            bigint NOT NULL,
    thread_id       text NOT NULL REFERENCES {schema}.threads,
    user_id         text NOT NULL,
    agent           text NOT NULL,
    kind            text NOT NULL DEFAULT 'input' CHECK (kind IN ('input', 'resume', 'internal')),
    input           json,
    options         json NOT NULL DEFAULT '{}',
    metadata        json NOT NULL DEFAULT '{}',
    idempotency_key text,
    fingerprint     text NOT NULL,
    resumes         text,
    answered_by     text,

    state           text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'interrupted')),
    epoch           bigint NOT NULL DEFAULT 0,
    -- what raised the epoch last, when, and which worker had the job before: enough to rebuild that epoch's event (P1)
    transition      text NOT NULL DEFAULT 'enqueue',
    transition_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    previous_worker text,
    announced       bigint NOT NULL DEFAULT -1,
    -- the last position that the epoch before gave to an event: what of it is missing in the log is a gap (P2)
    log_top         text,
    worker_id       text,

    failures        int NOT NULL DEFAULT 0,
    stalls          int NOT NULL DEFAULT 0,
    code            text,
    message         text,
    result          json,
    interrupts      json,

    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    run_at          timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz,
    started_at      timestamptz,
    claimed_at      timestamptz,
    finished_at     timestamptz,
    timeout_seconds double precision,
    running_seconds double precision NOT NULL DEFAULT 0,

    dispatched_at   timestamptz,
    dispatch_n      int NOT NULL DEFAULT 0,
    -- the thread's head when this epoch was claimed (the event's), and the newest checkpoint of any namespace then (L7)
    checkpoint_id   text,
    newest_at_claim text,
    -- the last beat of the worker that a rescue took the job from, for threadline_pickup_seconds
    silent_since    timestamptz
);

-- At most one job of a thread runs. A unique violation at claim means: not claimed.
CREATE UNIQUE INDEX jobs_one_running ON {schema}.jobs (thread_id) WHERE state = 'running';
CREATE UNIQUE INDEX jobs_idempotency ON {schema}.jobs (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_open ON {schema}.jobs (thread_id, turn, seq)
    WHERE state IN ('queued', 'running') OR (state = 'interrupted' AND answered_by IS NULL);
CREATE INDEX jobs_undispatched ON {schema}.jobs (run_at) WHERE state = 'queued' AND dispatched_at IS NULL;
CREATE INDEX jobs_dispatched ON {schema}.jobs (dispatched_at) WHERE state = 'queued' AND dispatched_at IS NOT NULL;
CREATE INDEX jobs_expiring ON {schema}.jobs (expires_at) WHERE state = 'queued' AND expires_at IS NOT NULL;
CREATE INDEX jobs_running ON {schema}.jobs (worker_id) WHERE state = 'running';
CREATE INDEX jobs_unannounced ON {schema}.jobs (transition_at) WHERE announced < epoch AND epoch > 0;
CREATE INDEX jobs_state ON {schema}.jobs (state, created_at DESC) WHERE state IN ('queued', 'running', 'interrupted');
CREATE INDEX jobs_user ON {schema}.jobs (user_id, created_at DESC);
CREATE INDEX jobs_thread ON {schema}.jobs (thread_id, created_at DESC);
CREATE INDEX jobs_created ON {schema}.jobs (created_at DESC);

CREATE TABLE {schema}.workers (
    worker_id   text PRIMARY KEY,
    lock_key    bigint NOT NULL,
    version     text NOT NULL,
    -- {"name": {"text_input": true | false | null}}
    agents      jsonb NOT NULL,
    concurrency int NOT NULL,
    draining    boolean NOT NULL DEFAULT false,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    beat        bigint NOT NULL DEFAULT 0,
    beat_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- whether the advisory lock was seen held by the beat's session (V1); false behind a transaction pooler
    lock_ok     boolean NOT NULL DEFAULT false
);

-- A row of its own, so that asking for a cancel never waits for a saver that holds the job's row (F3).
CREATE TABLE {schema}.cancel_requests (
    job_id       text PRIMARY KEY REFERENCES {schema}.jobs ON DELETE CASCADE,
    code         text NOT NULL,
    rollback     boolean NOT NULL DEFAULT false,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- O4: where a thread stood at a job's first claim, before any write: the head of every namespace of its checkpoints, and
-- those heads' pending writes. Deleting newer checkpoints alone would keep an approval alive that stands among them.
CREATE TABLE {schema}.job_bases (
    job_id    text PRIMARY KEY REFERENCES {schema}.jobs ON DELETE CASCADE,
    thread_id text NOT NULL,
    heads     jsonb NOT NULL
);
CREATE INDEX job_bases_thread ON {schema}.job_bases (thread_id);
CREATE TABLE {schema}.job_base_writes (
    job_id        text NOT NULL REFERENCES {schema}.job_bases ON DELETE CASCADE,
    checkpoint_ns text NOT NULL,
    checkpoint_id text NOT NULL,
    task_id       text NOT NULL,
    task_path     text NOT NULL,
    idx           int NOT NULL,
    channel       text NOT NULL,
    type          text,
    blob          bytea NOT NULL,
    PRIMARY KEY (job_id, checkpoint_ns, checkpoint_id, task_id, idx)
);

CREATE TABLE {schema}.dead_letters (
    message_id  text PRIMARY KEY,
    reason      text NOT NULL,
    body        bytea,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Open: what holds its thread, or will.
CREATE FUNCTION {schema}.is_open(j {schema}.jobs) RETURNS boolean LANGUAGE sql IMMUTABLE AS
$$ SELECT j.state IN ('queued', 'running') OR (j.state = 'interrupted' AND j.answered_by IS NULL) $$;

-- O1: whether nothing of the thread stands before this job. A job that is not yet due and never started does not hold.
CREATE FUNCTION {schema}.is_head(j {schema}.jobs) RETURNS boolean LANGUAGE sql STABLE AS
$$
    SELECT NOT EXISTS (
        SELECT FROM {schema}.jobs AS before
        WHERE before.thread_id = j.thread_id AND before.job_id <> j.job_id
          AND (before.state IN ('queued', 'running') OR (before.state = 'interrupted' AND before.answered_by IS NULL))
          AND (before.state = 'running' OR (before.turn, before.seq) < (j.turn, j.seq))
          AND NOT (before.state = 'queued' AND before.started_at IS NULL AND before.run_at > now()))
$$;

-- F1: the fence. Raises LF001 unless this job, thread, epoch and worker are still running. The row is shared, not
-- locked for update: the saver's transaction commits before any transition of the job can.
CREATE FUNCTION {schema}.assert_fence(p_job text, p_thread text, p_epoch bigint, p_worker text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM {schema}.jobs
    WHERE job_id = p_job AND thread_id = p_thread AND epoch = p_epoch AND worker_id = p_worker AND state = 'running'
    FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'job % is no longer ours at epoch %', p_job, p_epoch USING ERRCODE = 'LF001';
    END IF;
END $$;

-- L2: one call, one row. `outcome`: created, existing (same key, same request), different (same key, another request),
-- owned_by_another, busy (on_busy=reject; `job_id` holds the thread), unknown_agent, no_text_input.
-- `head` says whether the job may be dispatched now.
CREATE FUNCTION {schema}.enqueue_job(
    p_job text, p_thread text, p_user text, p_agent text, p_input json, p_options json, p_metadata json,
    p_key text, p_fingerprint text, p_on_busy text, p_run_at timestamptz, p_expires_seconds double precision,
    p_timeout double precision, p_lease_seconds double precision, p_text_input boolean, p_dispatching boolean
) RETURNS TABLE (outcome text, job_id text, thread_id text, state text, epoch bigint, dispatch_n int, head boolean)
LANGUAGE plpgsql AS $$
DECLARE
    v_job {schema}.jobs;
    v_other {schema}.jobs;
    v_owner text;
    v_seq bigint;
    v_new_thread boolean;
BEGIN
    SELECT * INTO v_job FROM {schema}.jobs AS j
    WHERE (j.user_id = p_user AND j.idempotency_key = p_key) OR j.job_id = p_job LIMIT 1;
    IF FOUND THEN
        RETURN QUERY SELECT CASE WHEN v_job.user_id = p_user AND v_job.fingerprint = p_fingerprint THEN 'existing'
            ELSE 'different' END, v_job.job_id, v_job.thread_id, v_job.state, v_job.epoch, v_job.dispatch_n, false;
        RETURN;
    END IF;

    outcome := {schema}.agent_check(p_agent, p_lease_seconds, p_text_input);
    IF outcome IS NOT NULL THEN
        RETURN NEXT;
        RETURN;
    END IF;

    INSERT INTO {schema}.threads AS t (thread_id, user_id) VALUES (p_thread, p_user) ON CONFLICT DO NOTHING;
    v_new_thread := FOUND;
    -- A decision about "busy" must not race with another enqueue: the exclusive lock conflicts with the share lock
    -- that each insert's foreign key takes.
    IF p_on_busy = 'enqueue' THEN
        SELECT t.user_id INTO v_owner FROM {schema}.threads AS t WHERE t.thread_id = p_thread;
    ELSE
        SELECT t.user_id INTO v_owner FROM {schema}.threads AS t WHERE t.thread_id = p_thread FOR UPDATE;
    END IF;
    IF v_owner <> p_user THEN
        RETURN QUERY SELECT 'owned_by_another', NULL::text, p_thread, NULL::text, NULL::bigint, NULL::int, false;
        RETURN;
    END IF;

    -- The job goes in before "busy" is judged: where its key came first in another transaction, nothing is replaced
    -- and nobody is refused.
    v_seq := nextval(pg_get_serial_sequence('{schema}.jobs', 'seq'));
    INSERT INTO {schema}.jobs AS j (job_id, seq, turn, thread_id, user_id, agent, input, options, metadata,
        idempotency_key, fingerprint, run_at, expires_at, timeout_seconds, dispatched_at, dispatch_n)
    OVERRIDING SYSTEM VALUE
    VALUES (p_job, v_seq, v_seq, p_thread, p_user, p_agent, p_input, p_options, p_metadata, p_key, p_fingerprint,
        coalesce(p_run_at, now()), clock_timestamp() + make_interval(secs => p_expires_seconds), p_timeout, NULL, 0)
    ON CONFLICT DO NOTHING
    RETURNING j.* INTO v_job;
    IF NOT FOUND THEN
        -- The same key or id came first in another transaction, which has committed by now: look again.
        IF v_new_thread THEN
            DELETE FROM {schema}.threads AS t WHERE t.thread_id = p_thread;
        END IF;
        RETURN QUERY SELECT * FROM {schema}.enqueue_job(p_job, p_thread, p_user, p_agent, p_input, p_options,
            p_metadata, p_key, p_fingerprint, p_on_busy, p_run_at, p_expires_seconds, p_timeout, p_lease_seconds,
            p_text_input, p_dispatching);
        RETURN;
    END IF;

    IF p_on_busy = 'reject' THEN
        SELECT * INTO v_other FROM {schema}.jobs AS j
        WHERE j.thread_id = p_thread AND j.job_id <> p_job
          AND (j.state IN ('queued', 'running') OR (j.state = 'interrupted' AND j.answered_by IS NULL))
        ORDER BY j.turn, j.seq LIMIT 1;
        IF FOUND THEN
            DELETE FROM {schema}.jobs AS j WHERE j.job_id = p_job;
            RETURN QUERY SELECT 'busy', v_other.job_id, p_thread, v_other.state, v_other.epoch, NULL::int, false;
            RETURN;
        END IF;
    ELSIF p_on_busy IN ('interrupt', 'rollback') THEN
        PERFORM {schema}.replace_jobs(p_thread, p_job, p_on_busy = 'rollback');
    END IF;

    head := v_job.run_at <= now() AND {schema}.is_head(v_job);
    IF head AND p_dispatching THEN
        -- The caller puts the message into the queue after its commit; a lost one is found by the sweep (L4).
        UPDATE {schema}.jobs AS j SET dispatched_at = clock_timestamp(), dispatch_n = 1 WHERE j.job_id = p_job;
    ELSIF head THEN
        PERFORM pg_notify('{schema}', '');
    END IF;
    RETURN QUERY SELECT 'created', p_job, p_thread, 'queued', 0::bigint, 1, head;
END $$;

-- NULL if live workers run the agent (or none lives, or none is asked about); else unknown_agent or no_text_input.
CREATE FUNCTION {schema}.agent_check(p_agent text, p_lease_seconds double precision, p_text_input boolean) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN count(*) = 0 THEN NULL
        WHEN count(*) FILTER (WHERE w.agents ? p_agent) = 0 THEN 'unknown_agent'
        WHEN p_text_input AND bool_and((w.agents -> p_agent ->> 'text_input') = 'false')
            FILTER (WHERE w.agents ? p_agent) THEN 'no_text_input'
    END
    FROM {schema}.workers AS w
    WHERE w.beat_at > clock_timestamp() - make_interval(secs => p_lease_seconds)
$$;

-- O3: what is queued or waits for a person ends as cancelled/replaced, for p_job's sake; what runs is asked to stop.
-- What is claimed or released meanwhile has the request against it (L8).
CREATE FUNCTION {schema}.replace_jobs(p_thread text, p_job text, p_rollback boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- First the requests: the trigger below reads from them whether a rollback was asked for.
    INSERT INTO {schema}.cancel_requests AS c (job_id, code, rollback)
    SELECT j.job_id, 'replaced', p_rollback FROM {schema}.jobs AS j
    WHERE j.thread_id = p_thread AND j.kind <> 'internal' AND j.job_id <> p_job AND {schema}.is_open(j)
    ON CONFLICT (job_id) DO UPDATE SET rollback = c.rollback OR excluded.rollback;
    UPDATE {schema}.jobs AS j SET state = 'cancelled', code = 'replaced', epoch = j.epoch + 1, transition = 'cancel',
        transition_at = clock_timestamp(), finished_at = clock_timestamp(), worker_id = NULL
    WHERE j.thread_id = p_thread AND j.kind <> 'internal' AND j.job_id <> p_job
      AND (j.state = 'queued' OR (j.state = 'interrupted' AND j.answered_by IS NULL));
    PERFORM pg_notify('{schema}', '');
END $$;

-- O4, T1: whichever transition ends a job as cancelled (finish, release, rescue, claim, cancel): if a rollback was asked
-- for and the job has run, the thread is marked in the same transaction, and nobody claims from it until T2 is done.
CREATE FUNCTION {schema}.mark_rollback() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.started_at IS NOT NULL AND EXISTS (
        SELECT FROM {schema}.cancel_requests AS c WHERE c.job_id = NEW.job_id AND c.rollback) THEN
        UPDATE {schema}.threads SET restoring = NEW.job_id WHERE thread_id = NEW.thread_id;
        PERFORM pg_notify('{schema}', '');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER jobs_mark_rollback AFTER UPDATE OF state ON {schema}.jobs
    FOR EACH ROW WHEN (NEW.state = 'cancelled' AND OLD.state <> 'cancelled')
    EXECUTE FUNCTION {schema}.mark_rollback();

-- L8: queued (or waiting for a person) ends at once; running is asked; ended is a no-op. One row: the job after it,
-- with `changed`; no row if the job is unknown.
CREATE FUNCTION {schema}.cancel_job(p_job text, p_rollback boolean)
RETURNS TABLE (state text, thread_id text, changed boolean) LANGUAGE plpgsql AS $$
DECLARE
    v_job {schema}.jobs;
BEGIN
    IF p_rollback THEN
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

-- L7: one row: outcome retried | not_ended | moved_on, and the state after it; no row if the job is unknown. The thread
-- is locked first and looked at in a later statement, so that no claim on it is missed that was under way.
CREATE FUNCTION {schema}.retry_job(p_job text) RETURNS TABLE (outcome text, state text) LANGUAGE plpgsql AS $$
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
    DELETE FROM {schema}.cancel_requests AS c WHERE c.job_id = p_job;
    UPDATE {schema}.jobs AS j SET state = 'queued', epoch = j.epoch + 1, transition = 'retry',
        transition_at = clock_timestamp(), failures = 0, stalls = 0, code = NULL, message = NULL, worker_id = NULL,
        finished_at = NULL, dispatched_at = NULL, run_at = clock_timestamp(), expires_at = NULL, running_seconds = 0,
        log_top = NULL
    WHERE j.job_id = p_job;
    PERFORM pg_notify('{schema}', '');
    RETURN QUERY SELECT 'retried', 'queued';
END $$;
