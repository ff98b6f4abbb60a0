"""Settings are read once, and a value of the wrong form names its variable."""

from pathlib import Path

import pytest

from threadline_worker.agents.errors import AgentConfigError
from threadline_worker.agents.research.settings import ResearchSettings


def test_everything_unset_is_valid_and_configures_nothing() -> None:
    settings = ResearchSettings.from_env({"HOME": "/home/x"})
    assert settings == ResearchSettings(model="", cache_dir=Path("/home/x/.cache/threadline"))
    assert not settings.web
    assert not settings.may_fetch


def test_everything_set() -> None:
    settings = ResearchSettings.from_env(
        {
            "THREADLINE_MODEL": " openai:gpt-5 ",
            "THREADLINE_CORPUS": "/data",
            "THREADLINE_CACHE_DIR": "/cache",
            "TAVILY_API_KEY": "tvly-secret",
            "THREADLINE_SEARXNG_URL": "https://search.example/",
            "THREADLINE_OFFLINE_TOKENS_PER_SECOND": "12.5",
        }
    )
    assert settings == ResearchSettings(
        model="openai:gpt-5",
        corpus=Path("/data"),
        cache_dir=Path("/cache"),
        tavily_api_key="tvly-secret",
        searxng_url="https://search.example",
        offline_tokens_per_second=12.5,
    )
    assert settings.web
    assert settings.may_fetch
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(("value", "may_fetch"), [("1", True), ("on", True), ("0", False), ("", False)])
def test_fetching_may_be_allowed_by_itself(value: str, may_fetch: bool) -> None:
    assert ResearchSettings.from_env({"THREADLINE_FETCH_URL": value}).may_fetch is may_fetch


def test_fetching_may_be_refused_where_search_is_configured() -> None:
    assert not ResearchSettings.from_env({"TAVILY_API_KEY": "x", "THREADLINE_FETCH_URL": "0"}).may_fetch


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("THREADLINE_FETCH_URL", "maybe"),
        ("THREADLINE_SEARXNG_URL", "search.example"),
        ("THREADLINE_OFFLINE_TOKENS_PER_SECOND", "fast"),
        ("THREADLINE_OFFLINE_TOKENS_PER_SECOND", "-1"),
        ("THREADLINE_OFFLINE_TOKENS_PER_SECOND", "nan"),
    ],
)
def test_a_wrong_value_names_its_variable(variable: str, value: str) -> None:
    with pytest.raises(AgentConfigError, match=variable):
        ResearchSettings.from_env({variable: value})
