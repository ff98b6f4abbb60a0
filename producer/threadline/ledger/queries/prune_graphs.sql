-- Graphs first seen longer than %(seconds)s ago that no job was left with go, once there are more than %(most)s: an agent
-- may make another graph for each run. Few are left alone, for all jobs are looked at. Whoever runs one again describes
-- it anew (progress.sql). `pruned` is how many.
WITH gone AS (
    DELETE FROM {schema}.graphs AS g
    WHERE (SELECT count(*) FROM {schema}.graphs) > %(most)s
      AND g.first_seen < now() - make_interval(secs => %(seconds)s)
      AND NOT EXISTS (SELECT FROM {schema}.jobs AS j WHERE j.agent_fingerprint = g.fingerprint)
    RETURNING 1
)
SELECT count(*) AS pruned FROM gone
