"""Settings of the research agent, read once from an environment; nothing else in the agent looks at ``os.environ``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from threadline_worker.agents.errors import AgentConfigError

#: What a person may have to approve.
Subject = Literal["plan", "publish"]

#: What threadline_worker.memory reads.
_MEMORY = ("THREADLINE_MEMORY_ROUTES", "THREADLINE_USER_HASH_KEYS", "THREADLINE_STORE_EMBEDDINGS")


def default_cache_dir(env: Mapping[str, str]) -> Path:
    """Give the folder for search indexes: ``THREADLINE_CACHE_DIR``, else the user's cache folder."""
    if chosen := env.get("THREADLINE_CACHE_DIR", "").strip():
        return Path(chosen).expanduser()
    if base := env.get("XDG_CACHE_HOME", "").strip():
        return Path(base) / "threadline"
    return Path(env.get("HOME") or "~").expanduser() / ".cache" / "threadline"


@dataclass(frozen=True, slots=True)
class ResearchSettings:
    """What the research agent is built from.

    ``model`` is ``provider:model`` or ``offline``; empty means not configured, which ``build_research`` refuses.
    ``corpus`` is the folder that ``search_corpus`` reads, None for no such tool. ``cache_dir`` keeps its index.
    ``tavily_api_key`` and ``searxng_url`` each make ``web_search`` exist (Tavily wins). ``fetch_url`` makes the tool of
    that name exist; None means: where ``web_search`` exists. ``offline_tokens_per_second`` slows the offline model
    down so that a person can follow it; 0 is no delay. ``memory`` holds what the environment says of it: routes, the
    user hash keys, the embeddings. ``approve_plan`` and ``approve_publish`` ask a person in every job, before
    anything is researched and before the report is published.
    """

    model: str
    corpus: Path | None = None
    cache_dir: Path = field(default_factory=lambda: default_cache_dir({}))
    tavily_api_key: str | None = field(default=None, repr=False)
    searxng_url: str | None = None
    fetch_url: bool | None = None
    offline_tokens_per_second: float = 0.0
    memory: Mapping[str, str] = field(default_factory=dict)
    approve_plan: bool = False
    approve_publish: bool = False

    @property
    def approve(self) -> frozenset[Subject]:
        """What a person approves in every job."""
        chosen: dict[Subject, bool] = {"plan": self.approve_plan, "publish": self.approve_publish}
        return frozenset(subject for subject, wanted in chosen.items() if wanted)

    @property
    def web(self) -> bool:
        """Whether a web search is configured."""
        return bool(self.tavily_api_key or self.searxng_url)

    @property
    def may_fetch(self) -> bool:
        """Whether the agent may read pages of the web."""
        return self.web if self.fetch_url is None else self.fetch_url

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ResearchSettings:
        """Read ``THREADLINE_*`` and ``TAVILY_API_KEY`` from a mapping such as ``os.environ``.

        Raises:
            AgentConfigError: a value has the wrong form; the message names the variable.

        """
        corpus = env.get("THREADLINE_CORPUS", "").strip()
        approve = _approve(env)
        return cls(
            model=env.get("THREADLINE_MODEL", "").strip(),
            corpus=Path(corpus).expanduser() if corpus else None,
            cache_dir=default_cache_dir(env),
            tavily_api_key=env.get("TAVILY_API_KEY", "").strip() or None,
            searxng_url=_http_url(env, "THREADLINE_SEARXNG_URL"),
            fetch_url=_flag(env, "THREADLINE_FETCH_URL"),
            offline_tokens_per_second=_rate(env, "THREADLINE_OFFLINE_TOKENS_PER_SECOND"),
            memory={name: env[name] for name in _MEMORY if name in env},
            approve_plan="plan" in approve,
            approve_publish="publish" in approve,
        )


def _http_url(env: Mapping[str, str], name: str) -> str | None:
    value = env.get(name, "").strip().rstrip("/")
    if value and not value.startswith(("http://", "https://")):
        raise AgentConfigError(f"Set {name} to an address that begins with http:// or https://; it is {value!r}.")
    return value or None


def _approve(env: Mapping[str, str]) -> frozenset[str]:
    value = env.get("THREADLINE_RESEARCH_APPROVE", "")
    chosen = frozenset(word.strip() for word in value.split(",") if word.strip())
    if chosen - {"plan", "publish"}:
        raise AgentConfigError(f"Set THREADLINE_RESEARCH_APPROVE to plan, publish or plan,publish; it is {value!r}.")
    return chosen


def _flag(env: Mapping[str, str], name: str) -> bool | None:
    value = env.get(name, "").strip().lower()
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"0", "false", "no", "off"}:
        return False
    if not value:
        return None
    raise AgentConfigError(f"Set {name} to 1 or 0; it is {value!r}.")


def _rate(env: Mapping[str, str], name: str) -> float:
    value = env.get(name, "").strip() or "0"
    try:
        rate = float(value)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate >= 0):
        raise AgentConfigError(f"Set {name} to a number of tokens per second, 0 for no delay; it is {value!r}.")
    return rate
