-- %(erased)s more rows of %(what)s are gone, of %(user_id)s.
UPDATE {schema}.erasures
SET counts = counts || jsonb_build_object(%(what)s::text, coalesce((counts ->> %(what)s::text)::bigint, 0) + %(erased)s)
WHERE user_id = %(user_id)s
