-- One at a time works on an erasure: %(user_id)s. No row: it is finished.
UPDATE {schema}.erasures SET worked_at = clock_timestamp() WHERE user_id = %(user_id)s
RETURNING names, erased_at, audit_id, counts
