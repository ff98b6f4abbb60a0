-- %(jobs)s queued jobs over %(threads)s threads, as if producers had committed them and nobody had dispatched one yet.
-- Triggers are off (session_replication_role): each of these would only say `default`.
INSERT INTO threadline.threads (thread_id, user_id)
SELECT 't' || n, 'user-' || n %% 1000 FROM generate_series(0, %(threads)s - 1) AS n;
INSERT INTO threadline.jobs (job_id, seq, turn, thread_id, user_id, agent, input, options, metadata, fingerprint)
OVERRIDING SYSTEM VALUE
SELECT md5(n::text), n, n, 't' || n %% %(threads)s, 'user-' || n %% %(threads)s %% 1000, 'slow',
    json_build_object('messages', json_build_array(json_build_object('type', 'human', 'content', md5('q' || n)))),
    '{"on_busy":"enqueue","stream_modes":["updates"]}', '{}', 'p:' || md5('f' || n)
FROM generate_series(1, %(jobs)s) AS n;
SELECT setval(pg_get_serial_sequence('threadline.jobs', 'seq'), %(jobs)s + 1);
ANALYZE
