-- Who answers: its version, whether it takes writes.
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS version_number,
    pg_is_in_recovery() AS in_recovery, current_setting('transaction_read_only')::boolean AS read_only
