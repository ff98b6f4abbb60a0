-- A claim goes on from %(checkpoint_id)s, for its event, in the graph %(fingerprint)s (null: not told), which is described by
-- %(structure)s (null: the ledger may have that). %(job_id)s, %(epoch)s, %(worker_id)s. `known`: it has it now.
WITH known AS (
    INSERT INTO {schema}.graphs (fingerprint, structure) SELECT %(fingerprint)s, %(structure)s::json
    WHERE %(structure)s::text IS NOT NULL ON CONFLICT DO NOTHING
)
UPDATE {schema}.jobs SET checkpoint_id = %(checkpoint_id)s, needs_fingerprint = NULL,
    agent_fingerprint = coalesce(%(fingerprint)s, agent_fingerprint)
WHERE job_id = %(job_id)s AND epoch = %(epoch)s AND worker_id = %(worker_id)s AND state = 'running'
RETURNING job_id, %(fingerprint)s::text IS NULL OR %(structure)s::text IS NOT NULL
    OR EXISTS (SELECT FROM {schema}.graphs AS g WHERE g.fingerprint = %(fingerprint)s) AS known
