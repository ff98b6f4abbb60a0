-- The namespaces of the store that have one of %(names)s (text[]) as a label.
SELECT prefix FROM (SELECT DISTINCT prefix FROM {schema}.store) AS s
WHERE string_to_array(s.prefix, '.') && %(names)s::text[]
