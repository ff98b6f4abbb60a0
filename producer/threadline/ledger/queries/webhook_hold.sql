-- What is due is shown as held by a worker that may not send; a worker that may takes it all the same.
UPDATE {schema}.webhooks SET state = 'held' WHERE state = 'pending' AND next_at <= now() RETURNING job_id
