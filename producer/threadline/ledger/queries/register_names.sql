-- What %(worker_id)s calls a user that does not exist: %(user_names)s.
UPDATE {schema}.workers SET user_names = %(user_names)s WHERE worker_id = %(worker_id)s
