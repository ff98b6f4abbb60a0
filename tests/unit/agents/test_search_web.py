"""Web search goes through the service that is configured, and its failures can be read by a model."""

import json
from typing import Any

import pytest

from support.web import Answer, serving
from threadline_worker.agents.research.search_web import WebSearchError, web_search_from
from threadline_worker.agents.research.settings import ResearchSettings

RESULTS = {
    "results": [
        {"url": "https://a.example/pool", "title": " The\nPool ", "content": "Keeps   connections."},
        {"url": "https://b.example/", "title": None, "content": None},
        {"title": "without an address"},
        {"url": "https://c.example/"},
    ]
}


def searxng(port: int) -> Any:
    return web_search_from(ResearchSettings(model="offline", searxng_url=f"http://127.0.0.1:{port}"))


async def test_searxng_is_asked_for_json_and_its_results_become_sources() -> None:
    with serving({"/search": Answer(json.dumps(RESULTS).encode(), "application/json")}) as server:
        hits = await searxng(server.port)("pool & more", 2)
        assert [path for path, _ in server.seen] == ["/search?q=pool+%26+more&format=json"]
    assert [(hit.source["title"], hit.source["location"], hit.snippet) for hit in hits] == [
        ("The Pool", "https://a.example/pool", "Keeps connections."),
        ("https://b.example/", "https://b.example/", ""),
    ]


@pytest.mark.parametrize(
    "answer", [Answer(b"no", status=403), Answer(b"<html>", "text/html"), Answer(b"[]", "application/json")]
)
async def test_what_searxng_refuses_is_an_error_for_the_model(answer: Answer) -> None:
    with serving({"/search": answer}) as server, pytest.raises(WebSearchError, match="SearXNG gave no answer"):
        await searxng(server.port)("pool", 3)
    with pytest.raises(WebSearchError, match="SearXNG gave no answer"):
        await searxng(server.port)("pool", 3)


async def test_tavily_is_asked_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from langchain_tavily._utilities import TavilySearchAPIWrapper

    asked = []

    async def raw_results(self: Any, query: str, **options: Any) -> Any:
        asked.append((self.tavily_api_key.get_secret_value(), query, options["max_results"]))
        if query == "broken":
            raise ValueError("Error 401: Unauthorized")
        return {"results": [] if query == "nothing" else RESULTS["results"]}

    monkeypatch.setattr(TavilySearchAPIWrapper, "raw_results_async", raw_results)
    search: Any = web_search_from(
        ResearchSettings(model="offline", tavily_api_key="tvly-x", searxng_url="http://ignored")
    )
    assert len(await search("pool", 5)) == 3
    assert asked == [("tvly-x", "pool", 5)]
    assert await search("nothing", 5) == []
    with pytest.raises(WebSearchError, match=r"Tavily gave no answer .*401"):
        await search("broken", 5)


def test_tavily_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from threadline_worker.agents.errors import AgentConfigError

    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(AgentConfigError, match=r"threadline\[tavily\]"):
        web_search_from(ResearchSettings(model="offline", tavily_api_key="tvly-x"))


def test_nothing_configured_is_no_search() -> None:
    assert web_search_from(ResearchSettings(model="offline")) is None
