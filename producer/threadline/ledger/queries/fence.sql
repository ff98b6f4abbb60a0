-- F1: the last statement of a transaction: job, thread, epoch, worker; see the function in schema/0001_ledger.sql.
SELECT {schema}.assert_fence(%s, %s, %s, %s)
