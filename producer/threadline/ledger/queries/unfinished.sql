-- For --burst: whether anything is left in the queues %(queues)s that will be claimed without anybody's doing: due heads, jobs in
-- backoff, and what waits behind a job that runs, maybe of another queue.
SELECT EXISTS (SELECT FROM {schema}.jobs AS j WHERE j.queue = ANY (%(queues)s) AND (j.state = 'running'
    OR (j.state = 'queued' AND {schema}.is_head(j) AND (j.run_at <= now() OR j.started_at IS NOT NULL))
    OR (j.state = 'queued' AND EXISTS (SELECT FROM {schema}.jobs AS before
        WHERE before.thread_id = j.thread_id AND before.state = 'running')))) AS unfinished
