-- V4: running jobs past their deadline by more than %(grace)s seconds, whatever their worker's beats say. %(default)s seconds
-- where the job has no timeout of its own.
UPDATE {schema}.jobs AS j SET state = 'failed', code = 'timeout',
    message = 'the job ran for longer than its ' || coalesce(j.timeout_seconds, %(default)s) || ' seconds',
    epoch = j.epoch + 1, transition = 'timeout', transition_at = clock_timestamp(), finished_at = clock_timestamp(),
    previous_worker = j.worker_id,
    running_seconds = j.running_seconds + extract(epoch FROM clock_timestamp() - j.claimed_at)
WHERE j.state = 'running' AND j.kind <> 'internal' AND j.running_seconds
    + extract(epoch FROM clock_timestamp() - j.claimed_at) > coalesce(j.timeout_seconds, %(default)s) + %(grace)s
RETURNING j.job_id, j.kind, j.thread_id, j.agent, j.state, j.code, j.epoch, j.transition, j.transition_at, j.previous_worker,
    j.created_at, j.claimed_at, j.options, j.resumes
