-- One batch of at most %(limit)s expired items is deleted, with their vectors; what a run is just writing is left for later.
DELETE FROM {schema}.store AS s
USING (
    SELECT prefix, key
    FROM {schema}.store
    WHERE expires_at IS NOT NULL AND expires_at < now()
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
) AS gone
WHERE s.prefix = gone.prefix AND s.key = gone.key
