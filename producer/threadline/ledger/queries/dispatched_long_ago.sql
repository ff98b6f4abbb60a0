-- L4: queued heads whose message should have been taken by now. %(seconds)s, %(limit)s. The caller looks into the queue.
SELECT j.job_id, j.epoch, j.dispatch_n FROM {schema}.jobs AS j
WHERE j.state = 'queued' AND j.dispatched_at < clock_timestamp() - make_interval(secs => %(seconds)s)
  AND {schema}.is_head(j)
ORDER BY j.dispatched_at LIMIT %(limit)s
