-- LangGraph's tables: which are there.
SELECT to_regclass('{checkpoints}.checkpoints') IS NOT NULL AS checkpoints,
    to_regclass('{checkpoints}.checkpoint_writes') IS NOT NULL AS checkpoint_writes,
    to_regclass('{schema}.store') IS NOT NULL AS store
