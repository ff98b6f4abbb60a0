-- Where LangGraph's checkpoints are kept. `there`: in the schema of the settings, `here`: in the ledger's own;
-- `started`: some job has run, so its thread is kept somewhere.
SELECT to_regclass('{checkpoints}.checkpoints') IS NOT NULL AS there,
    to_regclass('{schema}.checkpoints') IS NOT NULL AS here,
    EXISTS (SELECT FROM pg_namespace WHERE nspname = '{checkpoints}') AS schema_there,
    EXISTS (SELECT FROM {schema}.jobs WHERE started_at IS NOT NULL) AS started
