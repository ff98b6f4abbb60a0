"""Memory across threads for any agent: the parts that authors of agents use, each loaded when it is first named."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threadline_worker.memory.backend import threadline_backend
    from threadline_worker.memory.names import user_namespace
    from threadline_worker.memory.recall import recall_tool
    from threadline_worker.memory.shared_state import SharedStateMiddleware

__all__ = ["SharedStateMiddleware", "recall_tool", "threadline_backend", "user_namespace"]

_HOMES = {
    "SharedStateMiddleware": "shared_state",
    "recall_tool": "recall",
    "threadline_backend": "backend",
    "user_namespace": "names",
}


def __getattr__(name: str) -> Any:
    # deepagents takes up to 2.8 s to import; the worker, which imports this package too, must not pay that.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
