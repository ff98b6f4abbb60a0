"""The worker half: runs agents, and nothing it does counts unless the ledger says at commit that the job is its own."""

import os

# Must be set before anything imports langgraph (findings.md): without it a crafted checkpoint blob ran code.
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")
