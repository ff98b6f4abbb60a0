-- L9: an internal job %(job_id)s that compacts %(thread_id)s if that is still idle; see schema/0008_retention.sql.
SELECT stored.*, {schema}.queue_of(%(job_id)s) AS queue
FROM {schema}.compaction_job(%(job_id)s, %(thread_id)s, %(input)s::json, %(idle_seconds)s, %(waiting)s,
    %(seconds)s, %(lease_seconds)s, %(dispatching)s) AS stored
