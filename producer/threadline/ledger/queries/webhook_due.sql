-- Whether any delivery is due now.
SELECT EXISTS (SELECT FROM {schema}.webhooks WHERE state IN ('pending', 'held') AND next_at <= now()) AS due
