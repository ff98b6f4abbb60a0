-- Every queue that a job is open in or that a registered worker serves, one a row.
SELECT queue FROM {schema}.jobs
WHERE state IN ('queued', 'running') OR (state = 'interrupted' AND answered_by IS NULL)
UNION SELECT unnest(coalesce(queues, '{default}')) FROM {schema}.workers
