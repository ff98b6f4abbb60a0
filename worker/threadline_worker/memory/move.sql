-- Items of the prefixes %(old)s (text[]) come to the prefix in the same place of %(new)s (text[]). Where the new one has
-- the key already, the item that was changed last is kept. Vectors go with their items: the keeper makes them anew.
-- Workers that still know the old name may write there during a rolling deploy: the next run of the user moves that, too.
WITH moved AS (
    DELETE FROM {schema}.store AS s
    USING unnest(%(old)s::text[], %(new)s::text[]) AS m (old, new)
    WHERE s.prefix = m.old AND m.old <> m.new
    RETURNING m.new AS prefix, s.key, s.value, s.created_at, s.updated_at, s.expires_at, s.ttl_minutes
)
INSERT INTO {schema}.store AS s (prefix, key, value, created_at, updated_at, expires_at, ttl_minutes)
SELECT DISTINCT ON (prefix, key) prefix, key, value, created_at, updated_at, expires_at, ttl_minutes
FROM moved
ORDER BY prefix, key, updated_at DESC
ON CONFLICT (prefix, key) DO UPDATE
SET value = EXCLUDED.value, created_at = EXCLUDED.created_at, updated_at = EXCLUDED.updated_at,
    expires_at = EXCLUDED.expires_at, ttl_minutes = EXCLUDED.ttl_minutes
WHERE s.updated_at < EXCLUDED.updated_at
