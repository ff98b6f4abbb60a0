"""The built-in agent ``research``: plans, searches, delegates, checks, and cites what its tools returned."""
