"""Real Valkey and Postgres with nothing else installed; no process, port or throw-away folder outlives their owner."""

from threadline_worker.embedded.errors import EmbeddedFailed, EmbeddedUnavailable
from threadline_worker.embedded.postgres import Postgres
from threadline_worker.embedded.session import Servers, embedded_server_handles, embedded_servers
from threadline_worker.embedded.state import ServerUrls, running_servers
from threadline_worker.embedded.valkey import Valkey

__all__ = [
    "EmbeddedFailed",
    "EmbeddedUnavailable",
    "Postgres",
    "ServerUrls",
    "Servers",
    "Valkey",
    "embedded_server_handles",
    "embedded_servers",
    "running_servers",
]
