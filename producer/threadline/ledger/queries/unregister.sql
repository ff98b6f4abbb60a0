-- The worker goes; whatever it still ran is for rescue (L6). %(worker_id)s.
DELETE FROM {schema}.workers WHERE worker_id = %(worker_id)s
