"""A chat model without an LLM: deterministic, offline, and honest about what it is."""
