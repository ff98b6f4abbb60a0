"""Retention on a schedule: what the settings say goes, and deletions of users that were left alone are finished."""
