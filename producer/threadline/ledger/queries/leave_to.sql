-- The job is for workers whose graph is %(fingerprint)s, as long as one lives (claim.sql). No row: none does, or the job is no
-- longer ours. %(job_id)s, %(epoch)s, %(worker_id)s, %(lease_seconds)s.
UPDATE {schema}.jobs AS j SET needs_fingerprint = %(fingerprint)s
WHERE j.job_id = %(job_id)s AND j.epoch = %(epoch)s AND j.worker_id = %(worker_id)s AND j.state = 'running'
  AND EXISTS (SELECT FROM {schema}.workers AS other
    WHERE other.agents -> j.agent ->> 'fingerprint' = %(fingerprint)s AND NOT other.draining
      AND j.queue = ANY (coalesce(other.queues, ARRAY['default'])) AND other.worker_id <> %(worker_id)s
      AND other.beat_at > clock_timestamp() - make_interval(secs => %(lease_seconds)s))
RETURNING j.job_id
