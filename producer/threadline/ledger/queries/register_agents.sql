-- What %(worker_id)s has learnt of its agents by loading one: %(agents)s.
UPDATE {schema}.workers SET agents = %(agents)s::jsonb WHERE worker_id = %(worker_id)s
