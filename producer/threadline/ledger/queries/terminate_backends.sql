-- F3: a dead worker's connections go before its jobs do. %(application_name)s.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = %(application_name)s AND pid <> pg_backend_pid()
