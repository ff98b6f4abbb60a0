-- L9: the answer of %(job_id)s was read; see the function in schema/0005_internal.sql.
SELECT {schema}.forget_internal(%(job_id)s) AS forgotten
