-- What live workers call a user that does not exist; none where they are of a release that does not say.
-- %(lease_seconds)s.
SELECT DISTINCT user_names FROM {schema}.workers
WHERE user_names IS NOT NULL AND beat_at > clock_timestamp() - make_interval(secs => %(lease_seconds)s)
