-- Where jobs began that are through: nobody will be rolled back to it any more. %(thread_id)s.
DELETE FROM {schema}.job_bases AS b USING {schema}.jobs AS j
WHERE b.thread_id = %(thread_id)s AND j.job_id = b.job_id AND EXISTS (SELECT FROM {schema}.jobs AS done
    WHERE done.thread_id = j.thread_id AND done.turn = j.turn AND done.state = 'succeeded')
