"""Searches the web through the one service that is configured; a failure is one error that a model can act on."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx

from threadline_worker.agents.errors import AgentConfigError
from threadline_worker.agents.research.fetch import web_source
from threadline_worker.agents.research.settings import ResearchSettings
from threadline_worker.agents.research.state import Source

TIMEOUT_SECONDS = 20.0
SNIPPET_CHARS = 600


class WebSearchError(Exception):
    """The search service gave no answer; the message is one sentence for a model."""


@dataclass(frozen=True, slots=True)
class WebHit:
    """A page that a search found, and what the service quotes from it."""

    source: Source
    snippet: str


WebSearch = Callable[[str, int], Awaitable[list[WebHit]]]


def web_search_from(settings: ResearchSettings) -> WebSearch | None:
    """Give the search that is configured, Tavily before SearXNG, or None.

    Raises:
        AgentConfigError: Tavily is configured but its package is missing.

    """
    if settings.tavily_api_key:
        return _tavily(settings.tavily_api_key)
    if settings.searxng_url:
        return _searxng(settings.searxng_url)
    return None


def _tavily(api_key: str) -> WebSearch:
    if importlib.util.find_spec("langchain_tavily") is None:
        raise AgentConfigError("TAVILY_API_KEY is set but its package is missing; install 'threadline[tavily]'.")
    from langchain_core.tools import ToolException  # noqa: PLC0415 - only where Tavily is used
    from langchain_tavily import TavilySearch  # noqa: PLC0415 - an extra, loaded where it is configured

    async def search(query: str, limit: int) -> list[WebHit]:
        tool = TavilySearch(tavily_api_key=api_key, max_results=limit, handle_tool_error=False)
        try:
            answer = await tool.ainvoke({"query": query})
        except ToolException:  # its way to say that nothing was found
            return []
        if not isinstance(answer, dict) or "results" not in answer:
            reason = answer.get("error") if isinstance(answer, dict) else answer
            raise WebSearchError(f"Tavily gave no answer ({reason}).")
        return _hits(answer["results"], limit)

    return search


def _searxng(base_url: str) -> WebSearch:
    async def search(query: str, limit: int) -> list[WebHit]:
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
                answer = await client.get(f"{base_url}/search", params={"q": query, "format": "json"})
            results = answer.raise_for_status().json().get("results", [])
        except (httpx.HTTPError, ValueError, AttributeError) as error:
            # 403 is what SearXNG says where JSON is not among its enabled formats
            raise WebSearchError(f"SearXNG gave no answer ({error or type(error).__name__}).") from error
        return _hits(results, limit)

    return search


def _hits(results: list[dict[str, Any]], limit: int) -> list[WebHit]:
    found = (entry for entry in results if isinstance(entry, dict) and entry.get("url"))
    return [
        WebHit(
            web_source(str(entry["url"]), str(entry.get("title") or "")),
            " ".join(str(entry.get("content") or "").split())[:SNIPPET_CHARS],
        )
        for entry, _ in zip(found, range(limit), strict=False)
    ]
