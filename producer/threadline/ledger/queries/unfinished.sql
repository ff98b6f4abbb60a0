-- For --burst: whether anything is left that will be claimed without anybody's doing: due heads, and jobs in backoff.
SELECT EXISTS (SELECT FROM {schema}.jobs AS j WHERE j.state = 'running' OR (j.state = 'queued' AND {schema}.is_head(j)
    AND (j.run_at <= now() OR j.started_at IS NOT NULL))) AS unfinished
