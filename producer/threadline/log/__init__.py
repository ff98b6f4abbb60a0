"""Progress is a log with positions: who writes it (append) and who reads it (follow)."""
