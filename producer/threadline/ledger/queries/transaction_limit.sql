-- F3: from now on this transaction may take %(limit)s ('12s'; '0' is no limit). By way of 0, for a timer that runs is not
-- set anew. It ends with the transaction.
-- Result: what the limit was; no row before Postgres 17, which has none.
WITH before AS MATERIALIZED (SELECT current_setting('transaction_timeout', true) AS was)
SELECT was, set_config('transaction_timeout', '0', true), set_config('transaction_timeout', %(limit)s::text, true)
FROM before WHERE was IS NOT NULL
