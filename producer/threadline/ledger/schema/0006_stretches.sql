-- P4: a thread is told stretch by stretch, in an order that never changes. A stretch of a job goes from its beginning (or
-- its end, if it never ran) to its next end. A job that goes on after an end, retried or cancelled while it waited for a
-- person, has another one: other jobs may have been told meanwhile. Expands only: 0.1.0 writes it through the trigger.

CREATE TABLE {schema}.stretches (
    n         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    thread_id text NOT NULL,
    job_id    text NOT NULL REFERENCES {schema}.jobs ON DELETE CASCADE,
    -- the first of its epochs: what the job had told before it stays before it
    epoch     bigint NOT NULL
);
CREATE INDEX stretches_thread ON {schema}.stretches (thread_id, n);
CREATE INDEX stretches_job ON {schema}.stretches (job_id);

CREATE FUNCTION {schema}.begin_stretch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Of a queued job the announcement belongs to what follows it; a question ends with the event of its own end.
    INSERT INTO {schema}.stretches (thread_id, job_id, epoch)
    VALUES (NEW.thread_id, NEW.job_id, CASE WHEN OLD.state = 'queued' THEN OLD.epoch ELSE NEW.epoch END);
    RETURN NULL;
END $$;
CREATE TRIGGER jobs_begin_stretch AFTER UPDATE OF state ON {schema}.jobs
    FOR EACH ROW WHEN (NEW.kind <> 'internal' AND NEW.state <> OLD.state
        AND (OLD.state = 'interrupted' OR (OLD.state = 'queued' AND OLD.transition IN ('enqueue', 'retry'))))
    EXECUTE FUNCTION {schema}.begin_stretch();

-- The trigger has locked out writers: nothing begins between it and this.
INSERT INTO {schema}.stretches (thread_id, job_id, epoch)
SELECT thread_id, job_id, 0 FROM {schema}.jobs
WHERE kind <> 'internal' AND coalesce(started_at, finished_at) IS NOT NULL
ORDER BY coalesce(started_at, finished_at), seq;
