-- The proof: what each table still has of %(user_id)s, whose threads were %(threads)s, whose jobs those of erasure_jobs, and
-- whose names %(names)s.
WITH jobs AS (SELECT e.job_id FROM {schema}.erasure_jobs AS e WHERE e.user_id = %(user_id)s),
    threads AS (SELECT unnest(%(threads)s::text[]) AS thread_id)
SELECT
    (SELECT count(*) FROM {schema}.threads AS r WHERE r.user_id = %(user_id)s) AS threads,
    (SELECT count(*) FROM {schema}.jobs AS r WHERE r.user_id = %(user_id)s) AS jobs,
    (SELECT count(*) FROM {schema}.cancel_requests AS r JOIN jobs USING (job_id)) AS cancel_requests,
    (SELECT count(*) FROM {schema}.job_bases AS r JOIN jobs USING (job_id)) AS job_bases,
    (SELECT count(*) FROM {schema}.job_base_writes AS r JOIN jobs USING (job_id)) AS job_base_writes,
    (SELECT count(*) FROM {schema}.stretches AS r JOIN jobs USING (job_id)) AS stretches,
    (SELECT count(*) FROM {schema}.webhooks AS r JOIN jobs USING (job_id)) AS webhooks,
    (SELECT count(*) FROM {schema}.effects AS r JOIN threads USING (thread_id)) AS effects,
    (SELECT count(*) FROM {checkpoints}.checkpoints AS r JOIN threads USING (thread_id)) AS checkpoints,
    (SELECT count(*) FROM {checkpoints}.checkpoint_blobs AS r JOIN threads USING (thread_id)) AS checkpoint_blobs,
    (SELECT count(*) FROM {checkpoints}.checkpoint_writes AS r JOIN threads USING (thread_id)) AS checkpoint_writes,
    (SELECT count(*) FROM {schema}.store AS r WHERE string_to_array(r.prefix, '.') && %(names)s::text[]) AS store
