"""Its state, nodes and tools."""
