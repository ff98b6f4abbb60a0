-- How many workers have beaten at least once with their lock held.
SELECT count(*)::int AS ready FROM {schema}.workers WHERE beat > 0 AND lock_ok
