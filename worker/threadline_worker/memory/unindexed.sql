-- Files of text without a vector, or changed after it was made, at most %(limit)s of them, those of %(skip)s (text[] of
-- prefix/key) left out: prefix, key, content, updated_at.
SELECT s.prefix, s.key, s.value ->> 'content' AS content, s.updated_at
FROM {schema}.store AS s
LEFT JOIN {schema}.store_vectors AS v
    ON v.prefix = s.prefix AND v.key = s.key AND v.field_name = 'content' AND v.updated_at >= s.updated_at
WHERE v.prefix IS NULL
    AND s.value ->> 'encoding' = 'utf-8'
    AND jsonb_typeof(s.value -> 'content') = 'string'
    AND s.value ->> 'content' ~ '\S'
    AND (s.expires_at IS NULL OR s.expires_at > now())
    AND s.prefix || '/' || s.key <> ALL (%(skip)s::text[])
LIMIT %(limit)s
