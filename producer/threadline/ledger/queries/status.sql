-- %(job_id)s. Result: the job's row as a JobStatus reads it, its result and what it asks a person.
SELECT job_id, thread_id, user_id, agent, state, epoch, worker_id, failures, stalls, code, message, created_at, started_at,
    finished_at, metadata, {schema}.webhook_status(job_id, options) AS webhook, result, interrupts, dispatched_at, queue, worker_version, agent_fingerprint
FROM {schema}.jobs WHERE job_id = %(job_id)s
