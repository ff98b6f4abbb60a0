"""The graphs that workers run: the built-in `research`, and those that an application configures."""
