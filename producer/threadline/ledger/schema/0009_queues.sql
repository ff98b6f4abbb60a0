-- Several queues: a job is in one of them, for good, and only a worker that serves it claims it. Expands only: 0.1.0 runs
-- on it. What 0.1.0 enqueues is in `default`; of the others its workers know nothing.

ALTER TABLE {schema}.jobs ADD COLUMN queue text NOT NULL DEFAULT 'default';
-- What a worker serves; null: its release knows no queues, which is `default` alone.
ALTER TABLE {schema}.workers ADD COLUMN queues text[];
-- Where Redis may still have its message (erase_jobs.sql).
ALTER TABLE {schema}.erasure_jobs ADD COLUMN queue text NOT NULL DEFAULT 'default';
-- Figures by queue, and dispatches of one queue that were lost, whatever waits in the others.
CREATE INDEX jobs_queue ON {schema}.jobs (queue, state, run_at)
    WHERE state IN ('queued', 'running') OR (state = 'interrupted' AND answered_by IS NULL);
CREATE INDEX jobs_queue_dispatched ON {schema}.jobs (queue, dispatched_at)
    WHERE state = 'queued' AND dispatched_at IS NOT NULL;

-- The queue that a job's options name. Read by pattern, not as JSON, for the reasons of webhook_url (0003).
CREATE FUNCTION {schema}.queue_in(p_options json) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT substring(p_options::text FROM '"queue"\s*:\s*"([a-z0-9_-]{1,40})"') $$;

-- Where an operation on a thread finds a worker: the queue of the thread's latest job, unless all who can do it serve
-- others. Whoever asks waits for the answer; which queue it comes through is nobody's concern.
CREATE FUNCTION {schema}.queue_of_internal(p_agent text, p_options json) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_usual text := (SELECT j.queue FROM {schema}.jobs AS j
        WHERE j.thread_id = p_options ->> 'thread_id' AND j.kind <> 'internal' ORDER BY j.seq DESC LIMIT 1);
BEGIN
    RETURN coalesce((
        SELECT q.name FROM {schema}.workers AS w, unnest(coalesce(w.queues, ARRAY['default'])) AS q (name)
        WHERE w.agents ? p_agent AND p_options ->> 'operation' = ANY (w.operations)
        ORDER BY w.draining, q.name IS DISTINCT FROM v_usual, w.beat_at DESC LIMIT 1), v_usual, 'default');
END $$;

-- By whatever release and function a job comes in: its options say where, those of an answer are the asking job's.
CREATE FUNCTION {schema}.choose_queue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.queue := CASE WHEN NEW.kind = 'internal' THEN {schema}.queue_of_internal(NEW.agent, NEW.options)
        ELSE coalesce({schema}.queue_in(NEW.options), 'default') END;
    RETURN NEW;
END $$;
CREATE TRIGGER jobs_choose_queue BEFORE INSERT ON {schema}.jobs
    FOR EACH ROW EXECUTE FUNCTION {schema}.choose_queue();

-- Where a job is that the same statement has just stored: VOLATILE, so that it sees it.
CREATE FUNCTION {schema}.queue_of(p_job text) RETURNS text LANGUAGE sql VOLATILE AS
$$ SELECT j.queue FROM {schema}.jobs AS j WHERE j.job_id = p_job $$;

-- A worker of 0.1.0 would claim what its sweep has put into the default queue, whatever queue the job is in. As an error,
-- and as this one, for the reasons of keep_answer (0007).
CREATE FUNCTION {schema}.keep_queue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM {schema}.workers AS w WHERE w.worker_id = NEW.worker_id AND w.queues IS NULL) THEN
        RAISE EXCEPTION 'worker % is of a release that serves no queue but the default one', NEW.worker_id
            USING ERRCODE = 'unique_violation', CONSTRAINT = 'jobs_one_running';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER jobs_keep_queue BEFORE UPDATE OF state ON {schema}.jobs
    FOR EACH ROW WHEN (NEW.queue <> 'default' AND NEW.state = 'running' AND OLD.state = 'queued')
    EXECUTE FUNCTION {schema}.keep_queue();
