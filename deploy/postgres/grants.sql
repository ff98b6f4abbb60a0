-- What each role may do, given by the migrate role after every `threadline migrate`; the file is the whole truth, so it
-- begins by taking everything back, and it is one transaction.
--
--   psql -v ON_ERROR_STOP=1 -c "SET threadline.namespace = 'threadline'" -f grants.sql "$MIGRATE_URL"
--
-- With THREADLINE_CHECKPOINT_SCHEMA also `SET threadline.checkpoint_schema = …`, as a role that owns those tables.
--
--   producer  calls the ledger's functions, which run as their owner, and reads jobs. It writes no table by itself but
--             the two columns groups below, and of checkpoints it sees only which threads have any.
--   worker    reads and writes all rows, and makes or drops nothing.
--   observer  counts: no inputs, results, questions, messages, users or checkpoints.

DO $$
DECLARE
    v_schema text := coalesce(nullif(current_setting('threadline.namespace', true), ''), 'threadline');
    v_checkpoints text := coalesce(nullif(current_setting('threadline.checkpoint_schema', true), ''), v_schema);
    v_worker text := v_schema || '_worker';
    v_producer text := v_schema || '_producer';
    v_observer text := v_schema || '_observer';
    v_table text;
    v_place text;
    v_function regprocedure;
    -- What producers call. Run as the owner, so that no producer needs the tables that they and their triggers write.
    c_calls CONSTANT text[] := ARRAY['enqueue_job', 'cancel_job', 'retry_job', 'resume_job', 'internal_job',
        'forget_internal', 'webhook_status', 'queue_of'];
    c_migrations CONSTANT text[] := ARRAY['schema_migrations', 'checkpoint_migrations', 'store_migrations',
        'vector_migrations'];
BEGIN
    IF to_regclass(format('%I.schema_migrations', v_schema)) IS NULL THEN
        RAISE EXCEPTION 'the schema % is not migrated: run `threadline migrate` first', v_schema;
    END IF;

    FOREACH v_place IN ARRAY ARRAY[v_schema, v_checkpoints] LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I, %I, %I', v_place, v_worker, v_producer, v_observer);
    END LOOP;
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM PUBLIC, %I, %I, %I', v_schema, v_worker, v_producer, v_observer);
    EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA %I FROM PUBLIC, %I, %I, %I', v_schema, v_worker, v_producer, v_observer);
    EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA %I FROM PUBLIC, %I, %I, %I', v_schema, v_worker, v_producer, v_observer);

    -- The worker.
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO %I', v_schema, v_worker);
    EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA %I TO %I', v_schema, v_worker);
    EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA %I TO %I', v_schema, v_worker);
    FOREACH v_table IN ARRAY ARRAY['checkpoints', 'checkpoint_blobs', 'checkpoint_writes', 'checkpoint_migrations'] LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I.%I TO %I', v_checkpoints, v_table, v_worker);
    END LOOP;
    FOREACH v_place IN ARRAY ARRAY[v_schema, v_checkpoints] LOOP
        FOREACH v_table IN ARRAY c_migrations LOOP
            IF to_regclass(format('%I.%I', v_place, v_table)) IS NOT NULL THEN
                EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON %I.%I FROM %I', v_place, v_table, v_worker);
            END IF;
        END LOOP;
    END LOOP;

    -- The producer.
    FOR v_function IN
        SELECT p.oid::regprocedure FROM pg_proc AS p
        WHERE p.pronamespace = v_schema::regnamespace AND p.proname = ANY (c_calls)
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, pg_temp', v_function);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', v_function, v_producer);
    END LOOP;
    EXECUTE format('GRANT SELECT ON %1$I.jobs, %1$I.workers, %1$I.stretches, %1$I.schema_migrations TO %2$I',
        v_schema, v_producer);
    EXECUTE format('GRANT SELECT (thread_id, user_id) ON %I.threads TO %I', v_schema, v_producer);
    EXECUTE format('GRANT SELECT (thread_id) ON %I.checkpoints TO %I', v_checkpoints, v_producer);
    -- A message that could not be sent is left to the workers; a report is sent once more.
    EXECUTE format('GRANT UPDATE (dispatched_at) ON %I.jobs TO %I', v_schema, v_producer);
    EXECUTE format('GRANT SELECT (job_id, epoch, claims), UPDATE (state, claims, attempts, status, answer, delivered_at,'
        ' next_at) ON %I.webhooks TO %I', v_schema, v_producer);

    -- The observer: what `threadline doctor`, KEDA and a dashboard count.
    EXECUTE format('GRANT SELECT (job_id, seq, thread_id, agent, kind, queue, state, epoch, code, worker_id, failures, stalls,'
        ' answered_by, created_at, run_at, expires_at, started_at, claimed_at, finished_at, dispatched_at,'
        ' worker_version, agent_fingerprint) ON %I.jobs TO %I', v_schema, v_observer);
    EXECUTE format('GRANT SELECT (message_id, reason, received_at) ON %I.dead_letters TO %I', v_schema, v_observer);
    EXECUTE format('GRANT SELECT (job_id, epoch, host, state, next_at, attempts, status, created_at) ON %I.webhooks TO %I',
        v_schema, v_observer);
    EXECUTE format('GRANT SELECT ON %1$I.workers, %1$I.schema_migrations TO %2$I', v_schema, v_observer);
END $$;
