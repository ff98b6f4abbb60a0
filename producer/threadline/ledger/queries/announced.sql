-- P1: the event of %(epoch)s is in the log. %(job_id)s.
UPDATE {schema}.jobs SET announced = %(epoch)s WHERE job_id = %(job_id)s AND announced < %(epoch)s
