-- The database's clock as epoch seconds.
SELECT extract(epoch FROM clock_timestamp())::float8 AS now
