-- A file's vector, unless the file was changed or deleted since it was read (%(updated_at)s).
INSERT INTO {schema}.store_vectors (prefix, key, field_name, embedding, created_at, updated_at)
SELECT s.prefix, s.key, 'content', %(vector)s::float8[]::vector, now(), s.updated_at
FROM {schema}.store AS s
WHERE s.prefix = %(prefix)s AND s.key = %(key)s AND s.updated_at = %(updated_at)s
FOR KEY SHARE
ON CONFLICT (prefix, key, field_name) DO UPDATE
SET embedding = EXCLUDED.embedding, updated_at = EXCLUDED.updated_at
