-- What a compaction of %(thread_id)s keeps: the head of every namespace; where a job that may go on would be rolled back to
-- (O4); and of checkpoints of LangGraph's older forms the parent, which has their pending sends. `root`: the main
-- graph's checkpoint that a subgraph's call began from.
WITH heads AS (
    SELECT DISTINCT ON (k.checkpoint_ns) k.checkpoint_ns, k.checkpoint_id
    FROM {checkpoints}.checkpoints AS k WHERE k.thread_id = %(thread_id)s
    ORDER BY k.checkpoint_ns, k.checkpoint_id COLLATE "C" DESC
), bases AS (
    SELECT h.key AS checkpoint_ns, h.value AS checkpoint_id
    FROM {schema}.job_bases AS b JOIN {schema}.jobs AS j USING (job_id) CROSS JOIN LATERAL jsonb_each_text(b.heads) AS h
    WHERE b.thread_id = %(thread_id)s AND NOT EXISTS (SELECT FROM {schema}.jobs AS done
        WHERE done.thread_id = j.thread_id AND done.turn = j.turn AND done.state = 'succeeded')
), kept AS (
    SELECT * FROM heads UNION SELECT * FROM bases
)
SELECT k.checkpoint_ns, k.checkpoint_id, k.metadata -> 'parents' ->> '' AS root,
    CASE WHEN (k.checkpoint ->> 'v')::int < 4 THEN k.parent_checkpoint_id END AS sends_parent
FROM {checkpoints}.checkpoints AS k JOIN kept USING (checkpoint_ns, checkpoint_id)
WHERE k.thread_id = %(thread_id)s
