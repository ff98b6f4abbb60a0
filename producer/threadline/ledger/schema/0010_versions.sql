-- Upgrades: which release and which graph ran a job; which releases a schema serves. Expands only: 0.1.0 runs on it.

-- `worker_version` is of the latest claim, `agent_fingerprint` of the graph that went on with the job last (null: not
-- known, as after a worker of 0.1.0). `needs_fingerprint`: a worker found that its graph lacks what the thread needs; as
-- long as a living worker has the graph of this fingerprint, no other one claims the job.
ALTER TABLE {schema}.jobs ADD COLUMN worker_version text, ADD COLUMN agent_fingerprint text,
    ADD COLUMN needs_fingerprint text;

-- What a fingerprint stands for: nodes, channels, graphs within (threadline_worker.agents.fingerprint). One row for each
-- graph that ever ran.
CREATE TABLE {schema}.graphs (
    fingerprint text PRIMARY KEY,
    structure   json NOT NULL,
    first_seen  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- A migration that takes something away says here from which migration on a release has to know the schema.
ALTER TABLE {schema}.schema_migrations ADD COLUMN oldest int NOT NULL DEFAULT 0;

-- In a trigger, so that claims of 0.1.0 are noted, too. Such a worker (one without operations, 0005) does not say which
-- graph it runs.
CREATE FUNCTION {schema}.note_version() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_worker {schema}.workers;
BEGIN
    SELECT * INTO v_worker FROM {schema}.workers AS w WHERE w.worker_id = NEW.worker_id;
    NEW.worker_version := v_worker.version;
    IF coalesce(v_worker.operations, '{}') = '{}' THEN
        NEW.agent_fingerprint := NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER jobs_note_version BEFORE UPDATE OF state ON {schema}.jobs
    FOR EACH ROW WHEN (NEW.state = 'running' AND OLD.state = 'queued')
    EXECUTE FUNCTION {schema}.note_version();
