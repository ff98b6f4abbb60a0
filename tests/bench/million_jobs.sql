-- A ledger as it is after months: %(ended)s ended jobs, two of five on a thread of their own, and an open remainder:
-- %(queued)s queued (a tenth of them not dispatched yet, half of that not yet due), %(running)s running on 50 workers,
-- %(waiting)s that wait for a person. One in fifty of the ended ones was a question that has been answered.
-- In the order of time, as they came; widths as the research agent makes them, text that does not compress to nothing.
-- Triggers are off (session_replication_role): they would do nothing here, a million times.
INSERT INTO threadline.workers (worker_id, lock_key, version, agents, concurrency)
SELECT 'w' || n, n, '0', '{"research": {"text_input": true}}', 10 FROM generate_series(1, 50) AS n;

INSERT INTO threadline.threads (thread_id, user_id, created_at)
SELECT 't' || n, 'user-' || n %% 10000, now() - interval '100 days'
FROM generate_series(0, (%(ended)s * 2) / 5) AS n;
INSERT INTO threadline.threads (thread_id, user_id)
SELECT 'o' || n, 'user-' || n %% 10000 FROM generate_series(1, %(queued)s + %(running)s + %(waiting)s) AS n;

INSERT INTO threadline.jobs (job_id, seq, turn, thread_id, user_id, agent, input, options, metadata, fingerprint,
    answered_by, state, epoch, transition, transition_at, previous_worker, announced, worker_id, code, result, interrupts,
    created_at, run_at, started_at, claimed_at, finished_at, running_seconds, dispatched_at, dispatch_n, checkpoint_id,
    idempotency_key)
OVERRIDING SYSTEM VALUE
SELECT md5(n::text), n, n, 't' || n %% ((%(ended)s * 2) / 5), 'user-' || n %% 10000, 'research',
    json_build_object('messages', json_build_array(json_build_object('type', 'human', 'content', md5('q' || n)))),
    '{"on_busy":"enqueue","stream_modes":["updates"],"interrupt_before":[],"interrupt_after":[]}', '{"ticket":1881}',
    'p:' || md5('f' || n) || md5('g' || n),
    CASE WHEN n %% 50 = 0 THEN md5((n + 1)::text) END,
    CASE WHEN n %% 50 = 0 THEN 'interrupted' WHEN n %% 40 = 1 THEN 'failed' WHEN n %% 60 = 1 THEN 'cancelled'
        ELSE 'succeeded' END,
    2, 'finish', at, 'w' || n %% 50 + 1, 2, 'w' || n %% 50 + 1, CASE WHEN n %% 50 <> 0 AND n %% 40 = 1 THEN 'error' END,
    json_build_object('report', repeat(md5('r' || n) || ' ', 8), 'sources', '[]'::json), NULL,
    at - interval '90 seconds', at - interval '90 seconds', at - interval '89 seconds', at - interval '89 seconds', at, 89,
    at - interval '90 seconds', 1, md5('c' || n), CASE WHEN n %% 4 = 0 THEN 'ticket-' || n END
FROM (SELECT n, now() - interval '100 days' * (1 - n::float8 / %(ended)s) AS at
      FROM generate_series(1, %(ended)s) AS n) AS one;

INSERT INTO threadline.jobs (job_id, seq, turn, thread_id, user_id, agent, input, options, metadata, fingerprint, state,
    epoch, transition, announced, worker_id, interrupts, run_at, started_at, claimed_at, finished_at, dispatched_at,
    dispatch_n)
OVERRIDING SYSTEM VALUE
SELECT 'open-' || n, %(ended)s + n, %(ended)s + n, 'o' || n, 'user-' || n %% 10000, 'research',
    json_build_object('messages', json_build_array(json_build_object('type', 'human', 'content', md5('q' || n)))),
    '{"on_busy":"enqueue","stream_modes":["updates"]}', '{}', 'p:' || md5('f' || n), state,
    CASE state WHEN 'queued' THEN 0 WHEN 'running' THEN 1 ELSE 2 END,
    CASE state WHEN 'queued' THEN 'enqueue' WHEN 'running' THEN 'claim' ELSE 'finish' END,
    CASE state WHEN 'queued' THEN -1 WHEN 'running' THEN 1 ELSE 2 END,
    CASE WHEN state <> 'queued' THEN 'w' || n %% 50 + 1 END,
    CASE WHEN state = 'interrupted' THEN '[{"id":"i","value":1}]'::json END,
    CASE WHEN n %% 20 = 0 AND state = 'queued' THEN now() + interval '1 hour' ELSE now() END,
    CASE WHEN state <> 'queued' THEN now() END, CASE WHEN state <> 'queued' THEN now() END,
    CASE WHEN state = 'interrupted' THEN now() END,
    CASE WHEN n %% 10 <> 0 OR state <> 'queued' THEN clock_timestamp() END, CASE WHEN n %% 10 <> 0 THEN 1 ELSE 0 END
FROM (SELECT n, CASE WHEN n <= %(queued)s THEN 'queued' WHEN n <= %(queued)s + %(running)s THEN 'running'
        ELSE 'interrupted' END AS state
      FROM generate_series(1, %(queued)s + %(running)s + %(waiting)s) AS n) AS one;

INSERT INTO threadline.webhooks (job_id, epoch, url, host, payload, state, next_at)
SELECT md5(n::text), 2, 'https://example.org/hook', 'example.org', '{}',
    CASE WHEN n > %(ended)s - 1000 THEN 'pending' ELSE 'delivered' END, now() + interval '1 hour'
FROM generate_series(greatest(1, %(ended)s - 100000), %(ended)s) AS n;

-- Every ended thread has a checkpoint, every other open one, too: of more a claim reads no more.
INSERT INTO threadline.checkpoints (thread_id, checkpoint_ns, checkpoint_id, type, checkpoint, metadata)
SELECT thread_id, '', '1f0c' || md5(thread_id), 'msgpack', '{"v": 4}', '{"step": 3}'
FROM threadline.threads WHERE thread_id LIKE 't%%' OR thread_id LIKE 'o%%2';
INSERT INTO threadline.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob)
SELECT thread_id, '', checkpoint_id, md5(checkpoint_id), 0, 'messages', 'msgpack', 'x' FROM threadline.checkpoints;

SELECT setval(pg_get_serial_sequence('threadline.jobs', 'seq'),
    %(ended)s + %(queued)s + %(running)s + %(waiting)s + 1);
