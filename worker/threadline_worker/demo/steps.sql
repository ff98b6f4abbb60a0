-- What a thread's checkpoints say of the steps made for a job. %(thread_id)s. `done` counts committed super-steps of all
-- namespaces; `again` those of which a second checkpoint was committed, which is what a step that ran again leaves.
SELECT coalesce(sum(1), 0)::int AS done, coalesce(sum(copies - 1), 0)::int AS again
FROM (
    SELECT count(*) AS copies FROM {schema}.checkpoints
    WHERE thread_id = %(thread_id)s AND (metadata ->> 'step')::int >= 0
    GROUP BY checkpoint_ns, metadata ->> 'step'
) AS steps
