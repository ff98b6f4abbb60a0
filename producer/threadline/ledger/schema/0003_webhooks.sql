-- Webhooks: the end of a job that has a `webhook_url` is a row of the outbox, written in the end's own transaction.
-- {schema} is the namespace. Expand only: processes of the release before end jobs through the same trigger.

CREATE TABLE {schema}.webhooks (
    job_id       text NOT NULL REFERENCES {schema}.jobs ON DELETE CASCADE,
    -- the epoch of the end: a job that is retried ends again and reports again
    epoch        bigint NOT NULL,
    url          text NOT NULL,
    -- host and port of the URL: what concurrency is bounded by, and all that a log line shows of it
    host         text NOT NULL,
    -- made once, so that every try sends the same bytes: json keeps them as they are
    payload      json NOT NULL,
    -- held: due, and only workers without THREADLINE_WEBHOOK_SECRETS have looked at it; failed: given up
    state        text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'held', 'delivered', 'failed')),
    -- when it is due; while somebody delivers it, when their lease ends
    next_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- the fence: every claim raises it, and only the newest claim's outcome is written
    claims       bigint NOT NULL DEFAULT 0,
    -- tries with a known outcome; a worker that dies in the middle uses up none
    attempts     int NOT NULL DEFAULT 0,
    status       int,
    -- the first 200 characters of the last answer, or why there was none
    answer       text,
    delivered_at timestamptz,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (job_id, epoch)
);
CREATE INDEX webhooks_open ON {schema}.webhooks (next_at) WHERE state IN ('pending', 'held');
CREATE INDEX webhooks_failed ON {schema}.webhooks (next_at) WHERE state = 'failed';

-- Read by pattern, not as JSON: it must never raise, or a job could not end, and `->>` raises for \u0000 anywhere in
-- the options. The URL was checked to have no quote and no backslash; inside another string the quotes are escaped.
CREATE FUNCTION {schema}.webhook_url(p_options json) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT substring(p_options::text FROM '"webhook_url"\s*:\s*"([^"\\]+)"') $$;

CREATE FUNCTION {schema}.rfc3339(p_moment timestamptz) RETURNS text LANGUAGE sql STABLE AS
$$ SELECT to_char(p_moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') $$;

-- What a receiver gets for the end that this row of jobs stands at. Over 256 KiB a result, or prompts, are left out.
CREATE FUNCTION {schema}.webhook_payload(j {schema}.jobs) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    c_most CONSTANT int := 262144;
    v_result json := CASE WHEN j.state = 'succeeded' THEN j.result END;
    v_interrupts json := CASE WHEN j.state = 'interrupted' THEN j.interrupts END;
    v_result_cut boolean := coalesce(octet_length(v_result::text) > c_most, false);
    v_interrupts_cut boolean := coalesce(octet_length(v_interrupts::text) > c_most, false);
BEGIN
    RETURN json_build_object(
        'type', 'job.' || j.state,
        'timestamp', {schema}.rfc3339(j.transition_at),
        'data', json_build_object(
            'job_id', j.job_id, 'thread_id', j.thread_id, 'user_id', j.user_id, 'agent', j.agent,
            'state', j.state, 'epoch', j.epoch, 'code', j.code, 'message', left(j.message, 8192),
            'metadata', j.metadata,
            'result', CASE WHEN NOT v_result_cut THEN v_result END, 'result_truncated', v_result_cut,
            'interrupts', CASE WHEN NOT v_interrupts_cut THEN v_interrupts END,
            'interrupts_truncated', v_interrupts_cut));
END $$;

-- Whichever transition ends a job (finish, release, rescue, claim, cancel, replace, expire, deadline): its report is
-- part of the same transaction.
CREATE FUNCTION {schema}.write_webhook() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_url text := {schema}.webhook_url(NEW.options);
BEGIN
    INSERT INTO {schema}.webhooks (job_id, epoch, url, host, payload)
    VALUES (NEW.job_id, NEW.epoch, v_url, lower(coalesce(substring(v_url FROM '^[^:]+://([^/?#]+)'), '')),
        {schema}.webhook_payload(NEW))
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER jobs_write_webhook AFTER UPDATE OF state ON {schema}.jobs
    FOR EACH ROW WHEN (NEW.state IN ('succeeded', 'failed', 'cancelled', 'interrupted') AND OLD.state <> NEW.state
        AND {schema}.webhook_url(NEW.options) IS NOT NULL)
    EXECUTE FUNCTION {schema}.write_webhook();

-- Where the report of a job's latest end stands, as JobStatus shows it; `waiting` before the first end, NULL if the job
-- has no webhook.
CREATE FUNCTION {schema}.webhook_status(p_job text, p_options json) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_row {schema}.webhooks;
BEGIN
    IF {schema}.webhook_url(p_options) IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT * INTO v_row FROM {schema}.webhooks AS w WHERE w.job_id = p_job ORDER BY w.epoch DESC LIMIT 1;
    RETURN json_build_object(
        'state', coalesce(v_row.state, 'waiting'), 'epoch', v_row.epoch, 'attempts', coalesce(v_row.attempts, 0),
        'status', v_row.status, 'answer', v_row.answer,
        'next_at', CASE WHEN v_row.state IN ('pending', 'held') THEN {schema}.rfc3339(v_row.next_at) END,
        'delivered_at', {schema}.rfc3339(v_row.delivered_at));
END $$;
