"""Reports the ends of jobs to their `webhook_url`: at least once, signed, and to allowed addresses only."""
