-- L9: why nobody has answered: how many workers live, and how many of these could do %(operation)s for %(agent)s.
-- %(lease_seconds)s.
SELECT count(*) AS living, count(*) FILTER (WHERE w.agents ? %(agent)s AND %(operation)s = ANY (w.operations)) AS able
FROM {schema}.workers AS w
WHERE w.beat_at > clock_timestamp() - make_interval(secs => %(lease_seconds)s)
