"""Turns ``THREADLINE_MODEL`` into a chat model, or says in one sentence what is missing.

Provider packages are imported only when their model is asked for.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any

from threadline_worker.agents.errors import AgentConfigError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

OFFLINE = "offline"
# The job itself is retried by the worker with a longer backoff, visible in the ledger; the client's own retries only
# bridge a hiccup.
MAX_RETRIES = 2
TIMEOUT_SECONDS = 120.0

_EXTRAS = {"anthropic": "langchain_anthropic", "openai": "langchain_openai"}
_KEYS = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}
_OPENAI_BASES = ("OPENAI_BASE_URL", "OPENAI_API_BASE")


def resolve_model(spec: str, *, offline_tokens_per_second: float = 0.0) -> BaseChatModel:
    """Make the chat model that ``spec`` names: ``offline``, or ``provider:model`` for LangChain's ``init_chat_model``.

    Raises:
        AgentConfigError: unset, malformed, package or key missing; the message says what to do.

    """
    if not spec:
        raise AgentConfigError("Set THREADLINE_MODEL to provider:model (such as openai:gpt-5) or to offline.")
    if spec == OFFLINE:
        from threadline_worker.agents.offline.model import OfflineChatModel  # noqa: PLC0415 - langchain loads on use

        return OfflineChatModel(tokens_per_second=offline_tokens_per_second)
    provider, name = _split(spec)
    _require_package(provider)
    _require_key(provider)
    return _init(spec, provider, name)


def _split(spec: str) -> tuple[str, str]:
    provider, colon, name = spec.partition(":")
    if not (colon and provider.strip() and name.strip()) or spec != spec.strip() or any(c.isspace() for c in spec):
        raise AgentConfigError(
            f"Set THREADLINE_MODEL to provider:model (such as openai:gpt-5) or to offline; {spec!r} is neither."
        )
    return provider, name


def _require_package(provider: str) -> None:
    package = _EXTRAS.get(provider)
    if package and importlib.util.find_spec(package) is None:
        raise AgentConfigError(
            f"The model provider {provider} needs its package; install 'threadline[{provider}]' to use it."
        )


def _require_key(provider: str) -> None:
    variable = _KEYS.get(provider)
    if variable is None or os.environ.get(variable) or os.environ.get("LANGSMITH_GATEWAY_API_KEY"):
        return
    note = " (any value where your server needs none)" if _own_server(provider) else ""
    raise AgentConfigError(f"Set {variable} to your API key{note}, or choose another THREADLINE_MODEL than {provider}.")


def _own_server(provider: str) -> bool:
    return provider == "openai" and any(os.environ.get(variable) for variable in _OPENAI_BASES)


def _init(spec: str, provider: str, name: str) -> BaseChatModel:
    from langchain.chat_models import init_chat_model  # noqa: PLC0415 - takes half a second, so only when used

    try:
        model: BaseChatModel = init_chat_model(name, model_provider=provider, **_options(provider))
    except ImportError as error:  # its message names the package to install
        raise AgentConfigError(f"THREADLINE_MODEL={spec} cannot be used yet: {error}.") from error
    except ValueError as error:  # an unknown provider, or pydantic refusing an option
        reason = " ".join(str(error).split())[:400]
        raise AgentConfigError(f"THREADLINE_MODEL={spec} was refused, please correct it: {reason}") from error
    return model


def _options(provider: str) -> dict[str, Any]:
    if provider not in _EXTRAS:
        return {}
    options: dict[str, Any] = {"max_retries": MAX_RETRIES, "timeout": TIMEOUT_SECONDS, "stream_usage": True}
    if _own_server(provider):
        # Servers that are compatible with OpenAI speak its chat API; few speak the newer Responses API.
        options["use_responses_api"] = False
    return options
