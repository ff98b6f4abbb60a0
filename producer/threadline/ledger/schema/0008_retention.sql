-- Retention: threads are compacted, what is old is pruned, a user is erased. Expands only: 0.1.0 runs on it.

-- When something of the thread ended last, of the jobs that are pruned; and the newest checkpoint that it was compacted at.
ALTER TABLE {schema}.threads ADD COLUMN active_at timestamptz;
ALTER TABLE {schema}.threads ADD COLUMN compacted text;
-- What this worker calls a user that does not exist: whoever erases has to know the same names (memory).
ALTER TABLE {schema}.workers ADD COLUMN user_names text;
CREATE INDEX jobs_finished ON {schema}.jobs (finished_at) WHERE finished_at IS NOT NULL;

-- A user who is being deleted. The row goes when nothing is left; it is the only place that still has the id.
CREATE TABLE {schema}.erasures (
    user_id   text PRIMARY KEY,
    -- the user's names in the store
    names     text[] NOT NULL,
    asked_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- when somebody last worked on it: whoever finds it left alone goes on
    worked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- while it is null, nothing new of the user is taken; then only Redis is left
    erased_at timestamptz,
    counts    jsonb NOT NULL DEFAULT '{}',
    audit_id  bigint
);
-- What Redis may still have of the jobs that are gone. `epoch` is that of their end; `recent`: somebody may still
-- publish or follow.
CREATE TABLE {schema}.erasure_jobs (
    user_id   text NOT NULL REFERENCES {schema}.erasures ON DELETE CASCADE,
    job_id    text NOT NULL,
    thread_id text NOT NULL,
    epoch     bigint NOT NULL,
    recent    boolean NOT NULL,
    PRIMARY KEY (user_id, job_id)
);

-- What remains of it: no id, no content.
CREATE TABLE {schema}.audit (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event       text NOT NULL,
    -- the user's name in the store: a hash of the id, keyed with THREADLINE_USER_HASH_KEYS
    subject     text NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- when the last of it was gone, Redis included
    finished_at timestamptz,
    counts      jsonb NOT NULL
);

-- Users share 64 locks, so that a transaction that enqueues for thousands of them holds no more.
CREATE FUNCTION {schema}.user_lock(p_user text) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$ SELECT hashtextextended('{schema} users ' || (hashtext(p_user) & 63), 0) $$;

-- Threads and jobs of a user who is being deleted are refused, with an error that says "later" also to 0.1.0. The lock
-- is held until the commit: an erasure begins behind all that are under way.
CREATE FUNCTION {schema}.refuse_erased() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared({schema}.user_lock(NEW.user_id));
    IF EXISTS (SELECT FROM {schema}.erasures AS e WHERE e.user_id = NEW.user_id AND e.erased_at IS NULL) THEN
        RAISE EXCEPTION 'the data of this user is being deleted: repeat the request when that is done'
            USING ERRCODE = 'object_in_use';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER threads_refuse_erased BEFORE INSERT ON {schema}.threads
    FOR EACH ROW EXECUTE FUNCTION {schema}.refuse_erased();
CREATE TRIGGER jobs_refuse_erased BEFORE INSERT ON {schema}.jobs
    FOR EACH ROW EXECUTE FUNCTION {schema}.refuse_erased();

-- Behind this call's commit nothing new of the user comes in.
CREATE FUNCTION {schema}.begin_erasure(p_user text, p_names text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock({schema}.user_lock(p_user));
    INSERT INTO {schema}.erasures AS e (user_id, names) VALUES (p_user, p_names)
    ON CONFLICT (user_id) DO UPDATE SET erased_at = NULL, worked_at = clock_timestamp(),
        names = ARRAY(SELECT DISTINCT unnest(e.names || excluded.names));
END $$;

-- Of its jobs' rows nothing is needed any more, if it is old enough: it has ended, waits for nobody, and owes no report.
CREATE FUNCTION {schema}.is_spent(j {schema}.jobs, p_seconds double precision) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT NOT {schema}.is_open(j) AND j.finished_at < now() - make_interval(secs => p_seconds)
        AND NOT EXISTS (SELECT FROM {schema}.webhooks AS w WHERE w.job_id = j.job_id AND w.state IN ('pending', 'held'))
$$;

-- Whether nothing has happened on the thread for so long and nothing is to happen; with p_waiting it may wait for a person.
CREATE FUNCTION {schema}.is_idle(t {schema}.threads, p_seconds double precision, p_waiting boolean) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT t.restoring IS NULL AND greatest(t.created_at, t.active_at) < now() - make_interval(secs => p_seconds)
        AND NOT EXISTS (SELECT FROM {schema}.jobs AS j WHERE j.thread_id = t.thread_id AND (
            j.state IN ('queued', 'running')
            OR (j.state = 'interrupted' AND j.answered_by IS NULL AND NOT p_waiting)
            OR (j.kind <> 'internal' AND j.finished_at >= now() - make_interval(secs => p_seconds))))
$$;

-- L9: holds an idle thread for its compaction; see internal_job in schema/0005_internal.sql. `outcome`: created, busy (not
-- idle any more), no_agent, unknown_agent.
CREATE FUNCTION {schema}.compaction_job(
    p_job text, p_thread text, p_input json, p_idle_seconds double precision, p_waiting boolean,
    p_seconds double precision, p_lease_seconds double precision, p_dispatching boolean
) RETURNS TABLE (outcome text, agent text) LANGUAGE plpgsql AS $$
DECLARE
    v_thread {schema}.threads;
BEGIN
    SELECT * INTO v_thread FROM {schema}.threads AS t WHERE t.thread_id = p_thread FOR UPDATE;
    IF NOT FOUND OR NOT {schema}.is_idle(v_thread, p_idle_seconds, p_waiting) THEN
        outcome := 'busy'; RETURN NEXT; RETURN;
    END IF;
    agent := coalesce((SELECT j.agent FROM {schema}.jobs AS j
        WHERE j.thread_id = p_thread AND j.kind <> 'internal' ORDER BY j.seq DESC LIMIT 1), v_thread.agent);
    outcome := CASE WHEN agent IS NULL THEN 'no_agent' ELSE {schema}.agent_check(agent, p_lease_seconds, false) END;
    IF outcome IS NOT NULL THEN
        RETURN NEXT; RETURN;
    END IF;
    INSERT INTO {schema}.jobs AS j (job_id, turn, thread_id, user_id, agent, kind, input, options, fingerprint,
        expires_at, timeout_seconds, dispatched_at, dispatch_n)
    VALUES (p_job, 0, p_thread, v_thread.user_id, compaction_job.agent, 'internal', p_input,
        json_build_object('operation', 'compact', 'thread_id', p_thread), '',
        clock_timestamp() + make_interval(secs => p_seconds), p_seconds,
        CASE WHEN p_dispatching THEN clock_timestamp() END, CASE WHEN p_dispatching THEN 1 ELSE 0 END);
    IF NOT p_dispatching THEN
        PERFORM pg_notify('{schema}', '');
    END IF;
    outcome := 'created'; RETURN NEXT;
END $$;
