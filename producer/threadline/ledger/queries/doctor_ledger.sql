-- One row: what lies in the ledger and should not. Due are queued jobs whose time has come.
WITH due AS (
    SELECT job_id, agent, run_at, seq FROM {schema}.jobs WHERE state = 'queued' AND run_at <= now()
), oldest AS (
    SELECT job_id, agent, run_at FROM due ORDER BY run_at, seq LIMIT 1
)
SELECT (SELECT count(*) FROM {schema}.dead_letters) AS dead_letters,
    (SELECT reason FROM {schema}.dead_letters ORDER BY received_at DESC LIMIT 1) AS last_reason,
    (SELECT message_id FROM {schema}.dead_letters ORDER BY received_at DESC LIMIT 1) AS last_message,
    (SELECT count(*) FROM due) AS due, (SELECT job_id FROM oldest) AS oldest_job,
    (SELECT agent FROM oldest) AS oldest_agent,
    (SELECT extract(epoch FROM clock_timestamp() - run_at)::float8 FROM oldest) AS oldest_seconds
