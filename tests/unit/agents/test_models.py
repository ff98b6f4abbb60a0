"""A model name becomes a model, or one sentence that says what to do."""

import subprocess
import sys
from typing import Any

import pytest

from threadline_worker.agents.errors import AgentConfigError
from threadline_worker.agents.models import resolve_model


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "OPENAI_BASE_URL",
        "OPENAI_API_BASE",
        "LANGSMITH_GATEWAY_API_KEY",
    ):
        monkeypatch.delenv(name, raising=False)


def test_offline_is_the_offline_model() -> None:
    model: Any = resolve_model("offline", offline_tokens_per_second=5)
    assert (model._llm_type, model.tokens_per_second) == ("threadline-offline", 5)


@pytest.mark.parametrize("spec", ["", "gpt-5", ":", "openai:", ":gpt-5", "openai: gpt-5", "open ai:gpt-5"])
def test_unset_and_malformed_names_name_the_variable(spec: str) -> None:
    with pytest.raises(AgentConfigError, match="THREADLINE_MODEL"):
        resolve_model(spec)


def test_an_unknown_provider_is_refused_with_those_known() -> None:
    with pytest.raises(AgentConfigError, match=r"THREADLINE_MODEL=nobody:x was refused.*openai"):
        resolve_model("nobody:x")


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for provider in ("openai", "anthropic"):
        with pytest.raises(AgentConfigError, match=rf"install 'threadline\[{provider}\]'"):
            resolve_model(f"{provider}:x")


def test_a_missing_package_of_another_provider_is_named() -> None:
    with pytest.raises(AgentConfigError, match="langchain-groq"):
        resolve_model("groq:llama")


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AgentConfigError, match="Set OPENAI_API_KEY to your API key, or"):
        resolve_model("openai:gpt-5")
    with pytest.raises(AgentConfigError, match="Set ANTHROPIC_API_KEY"):
        resolve_model("anthropic:claude-sonnet-4-5")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(AgentConfigError, match="any value where your server needs none"):
        resolve_model("openai:local")


@pytest.mark.parametrize("variable", ["OPENAI_BASE_URL", "OPENAI_API_BASE"])
def test_a_compatible_server_is_spoken_to_by_the_chat_api(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    monkeypatch.setenv(variable, "http://127.0.0.1:9/v1")
    model: Any = resolve_model("openai:local-model")
    assert str(model.root_async_client.base_url) == "http://127.0.0.1:9/v1/"
    assert (model.use_responses_api, model.stream_usage, model.max_retries, model.request_timeout) == (
        False,
        True,
        2,
        120,
    )


def test_an_anthropic_model_is_made_with_the_same_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    model: Any = resolve_model("anthropic:claude-sonnet-4-5")
    assert (model.max_retries, model.default_request_timeout, model.stream_usage) == (2, 120, True)


def test_names_and_errors_are_light_to_import() -> None:
    code = (
        "import sys, threadline_worker.agents.errors, threadline_worker.agents.models\n"
        "heavy = {'langchain', 'langchain_core', 'langgraph', 'deepagents', 'pydantic', 'httpx'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
