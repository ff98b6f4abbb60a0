"""Encryption at rest: what users and agents say is sealed before it is written, and bound to the place it is for."""
