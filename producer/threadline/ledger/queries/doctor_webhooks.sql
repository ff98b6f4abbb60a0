-- One row: reports that wait for a worker with secrets, and reports that were given up within the last day.
SELECT (SELECT count(*) FROM {schema}.webhooks WHERE state = 'held') AS held,
    (SELECT count(*) FROM {schema}.webhooks WHERE state IN ('pending', 'held')) AS open,
    (SELECT count(*) FROM {schema}.webhooks
     WHERE state = 'failed' AND next_at > clock_timestamp() - interval '1 day') AS failed
