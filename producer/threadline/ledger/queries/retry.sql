-- L7: %(job_id)s goes on as the same job with a new epoch. Result: outcome retried | not_ended | moved_on, state, head.
-- No row: unknown.
WITH target AS (
    SELECT j.job_id, j.state, EXISTS (SELECT FROM {schema}.jobs AS later WHERE later.thread_id = j.thread_id
        AND (later.turn, later.seq) > (j.turn, j.seq) AND later.started_at IS NOT NULL) AS moved_on
    FROM {schema}.jobs AS j WHERE j.job_id = %(job_id)s FOR UPDATE
), forgotten AS (
    DELETE FROM {schema}.cancel_requests USING target
    WHERE cancel_requests.job_id = target.job_id AND target.state IN ('failed', 'cancelled') AND NOT target.moved_on
), done AS (
    UPDATE {schema}.jobs AS j SET state = 'queued', epoch = j.epoch + 1, transition = 'retry',
        transition_at = clock_timestamp(), failures = 0, stalls = 0, code = NULL, message = NULL, worker_id = NULL,
        finished_at = NULL, dispatched_at = NULL, run_at = clock_timestamp(), expires_at = NULL, running_seconds = 0
    FROM target
    WHERE j.job_id = target.job_id AND target.state IN ('failed', 'cancelled') AND NOT target.moved_on
    RETURNING j.state, pg_notify('{schema}', '')
)
SELECT CASE WHEN EXISTS (SELECT FROM done) THEN 'retried' WHEN target.state NOT IN ('failed', 'cancelled')
    THEN 'not_ended' ELSE 'moved_on' END AS outcome, target.state FROM target
