"""A tool that searches persistent folders by meaning; without an index, by shared words among the newest files."""

# No `from __future__ import annotations` here: LangChain reads these signatures at run time.
import json
import os
from collections.abc import Mapping
from typing import Any

from langchain.tools import ToolRuntime
from langchain_core.tools import BaseTool, tool
from langgraph.store.base import BaseStore, SearchItem

from threadline_worker.agents.words import words_of
from threadline_worker.memory.names import UserNames
from threadline_worker.memory.routes import parse_routes, routes_from_env
from threadline_worker.memory.user import user_of_run

__all__ = ["recall_tool"]

_MOST = 20
_SNIPPET_CHARS = 500
#: How many of the newest files are looked through where there is no index.
_LOOKED_THROUGH = 500


def recall_tool(routes: str | None = None, *, env: Mapping[str, str] = os.environ) -> BaseTool:
    """Make `recall` over the store's routes of THREADLINE_MEMORY_ROUTES, or of `routes` in the same form.

    Raises ConfigurationError.
    """
    names = UserNames.from_env(env)
    chosen = parse_routes(routes) if routes is not None else routes_from_env(env)
    kept = [route for route in chosen if route.kind != "disk"]

    @tool
    async def recall(query: str, runtime: ToolRuntime[Any, Any], limit: int = 5) -> str:
        """Search what is remembered.

        Returns paths to read, the nearest first, each with the beginning of its text. ``query`` says in words what you
        look for; ``limit`` is how many to return at most, 1 to 20.

        """
        if runtime.store is None:
            return "Nothing is remembered here: this run has no store."
        user, most = user_of_run(runtime), max(1, min(limit, _MOST))  # type: ignore[arg-type]  # it has the context, too
        found = []
        for route in kept:
            found += [(route, item) for item in await _search(runtime.store, route.namespace(names, user), query, most)]
        found.sort(key=lambda pair: -(pair[1].score or 0.0))
        shown = [
            {"path": f"{route.path.rstrip('/')}{item.key}", "text": _text(item)[:_SNIPPET_CHARS]}
            for route, item in found[:most]
        ]
        return json.dumps(shown, ensure_ascii=False) if shown else "Nothing that is remembered matches."

    return recall


async def _search(store: BaseStore, namespace: tuple[str, str], query: str, most: int) -> list[SearchItem]:
    found = await store.asearch(namespace, query=query, limit=most)
    if any(item.score is not None for item in found):
        return found
    items = await store.asearch(namespace, limit=_LOOKED_THROUGH)
    wanted = set(words_of(query))
    scored = [
        (len(wanted.intersection(words_of(f"{item.key} {_text(item)}"))) / max(len(wanted), 1), item) for item in items
    ]
    for score, item in scored:
        item.score = score
    return [item for score, item in sorted(scored, key=lambda pair: -pair[0]) if score][:most]


def _text(item: SearchItem) -> str:
    value = item.value.get("content", "")
    return "" if item.value.get("encoding") == "base64" else str(value)
