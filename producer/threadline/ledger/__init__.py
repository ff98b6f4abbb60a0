"""The Postgres truth: a job exists once its row is committed, and every transition raises its epoch."""
