-- Jobs that ended more than %(seconds)s ago and after %(after)s (null: all), the oldest first: thread_id, finished_at.
-- %(limit)s.
SELECT j.thread_id, j.finished_at FROM {schema}.jobs AS j
WHERE j.finished_at < now() - make_interval(secs => %(seconds)s)
  AND (%(after)s::timestamptz IS NULL OR j.finished_at > %(after)s::timestamptz)
  AND j.kind <> 'internal' AND NOT {schema}.is_open(j)
ORDER BY j.finished_at LIMIT %(limit)s
