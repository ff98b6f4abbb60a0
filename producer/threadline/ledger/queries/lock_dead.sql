-- Is it still as it was observed? %(worker_id)s, %(beat)s. One row (locked) or none; a beat since then changes nothing.
SELECT w.worker_id, w.beat_at
FROM {schema}.workers AS w WHERE w.worker_id = %(worker_id)s AND w.beat = %(beat)s FOR UPDATE SKIP LOCKED
