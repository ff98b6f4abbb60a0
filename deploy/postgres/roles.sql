-- The roles of one namespace, made once by an administrator (a superuser, or the owner of the database with CREATEROLE),
-- before the first `threadline migrate`; running it again changes nothing. Then, as the migrate role, after every
-- `threadline migrate`: grants.sql.
--
--   psql -v ON_ERROR_STOP=1 -c "SET threadline.namespace = 'threadline'" -f roles.sql "$ADMIN_URL"
--
-- Without the setting the namespace is `threadline`. The roles are <namespace>_migrate, _worker, _producer and _observer.
-- They can log in and have no password yet: \password threadline_worker, or ALTER ROLE … PASSWORD.

DO $$
DECLARE
    v_namespace text := coalesce(nullif(current_setting('threadline.namespace', true), ''), 'threadline');
    v_part text;
    v_role text;
    v_migrate text := v_namespace || '_migrate';
BEGIN
    IF v_namespace !~ '^[a-z][a-z0-9_]{0,39}$' THEN
        RAISE EXCEPTION 'threadline.namespace = %: use 1-40 of a-z, 0-9 and _, starting with a letter', v_namespace;
    END IF;

    FOREACH v_part IN ARRAY ARRAY['migrate', 'worker', 'producer', 'observer'] LOOP
        v_role := v_namespace || '_' || v_part;
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = v_role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION', v_role);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), v_role);
    END LOOP;

    -- Who is no superuser must be a member of a role to make things its own (managed services).
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT %I TO CURRENT_USER', v_migrate);
    END IF;

    -- `threadline migrate` asks for the schema to be there, and Postgres looks at the right to make it first.
    EXECUTE format('GRANT CREATE ON DATABASE %I TO %I', current_database(), v_migrate);
    EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION %I', v_namespace, v_migrate);

    -- What a later migration makes is open to workers at once; producers and observers get what grants.sql names.
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO %I',
        v_migrate, v_namespace, v_namespace || '_worker');
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT USAGE ON SEQUENCES TO %I',
        v_migrate, v_namespace, v_namespace || '_worker');

    -- An observer never writes, and a dashboard's query never holds the ledger up.
    EXECUTE format('ALTER ROLE %I SET default_transaction_read_only = on', v_namespace || '_observer');
    EXECUTE format('ALTER ROLE %I SET statement_timeout = ''10s''', v_namespace || '_observer');
END $$;
