"""What an operator sees: logs, metrics and health; never a thread, job or user id as a label, never a secret."""
