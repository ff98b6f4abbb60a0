-- Who answers: its version, whether it takes writes; `observing`: this role alone is made read-only (deploy/postgres).
SELECT current_setting('server_version') AS version, current_setting('server_encoding') AS encoding, current_setting('server_version_num')::int AS version_number,
    pg_is_in_recovery() AS in_recovery, current_setting('transaction_read_only')::boolean AS read_only,
    (SELECT s.source IN ('user', 'database user') FROM pg_settings AS s WHERE s.name = 'default_transaction_read_only')
        AS observing
