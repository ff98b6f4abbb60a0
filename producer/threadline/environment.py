"""The table of all environment variables: docs, checks and the hint for a mistyped name come from it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final, NamedTuple

from threadline.errors import ConfigurationError

__all__ = ["VARIABLES", "Variable", "number", "unknown_variables"]


class Variable(NamedTuple):
    """A variable's name, what it means and the default as a reader sees it."""

    name: str
    meaning: str
    default: str


VARIABLES: Final = (
    Variable(
        "REDIS_URL", "Redis or Valkey: redis://, rediss://, unix://, redis+sentinel://", "embedded in `dev` and `demo`"
    ),
    Variable("DATABASE_URL", "Postgres 14 or newer", "embedded in `dev` and `demo`"),
    Variable("THREADLINE_DATABASE_POOLER", "transaction: a transaction pooler stands before DATABASE_URL", "none"),
    Variable(
        "THREADLINE_DATABASE_DIRECT_URL",
        "Postgres past that pooler: a worker's heartbeat, sweep and locks, and migrate",
        "DATABASE_URL",
    ),
    Variable("THREADLINE_AGENTS", "a langgraph.json, or name=module:attr,…; adds to the built-in research", "–"),
    Variable("THREADLINE_MSGPACK_TYPES", "module:Class,…: types in agents' states that no schema of theirs names", "–"),
    Variable("THREADLINE_CHECKPOINT_SCHEMA", "Postgres schema of checkpoints that are adopted", "the namespace"),
    Variable("THREADLINE_MODEL", "provider:model for init_chat_model, or offline", "offline in dev and demo"),
    Variable("THREADLINE_CORPUS", "folder of .md .txt .html .pdf that research may search", "–"),
    Variable("THREADLINE_CONCURRENCY", "jobs at once in one worker process", "10"),
    Variable("THREADLINE_HEARTBEAT_SECONDS", "seconds between two beats of a worker", "1"),
    Variable("THREADLINE_LEASE_SECONDS", "silence after which a worker is taken for dead", "15"),
    Variable("THREADLINE_JOB_TIMEOUT_SECONDS", "running time of a job, summed over pick-ups", "3600"),
    Variable("THREADLINE_STEP_TIMEOUT_SECONDS", "a step without progress for so long counts as a failure", "600"),
    Variable("THREADLINE_LOOP_STALL_SECONDS", "a worker whose event loop stands still for so long ends itself", "300"),
    Variable("THREADLINE_DRAIN_SECONDS", "after SIGTERM, until running steps are cut", "25"),
    Variable("THREADLINE_METRICS_PORT", "/metrics /healthz /readyz; 0 is any free port", "9464"),
    Variable("THREADLINE_METRICS_HOST", "where that port listens; :: is IPv4 and IPv6", "127.0.0.1"),
    Variable("THREADLINE_LOG_FORMAT", "json or console", "json unless a terminal"),
    Variable("THREADLINE_LOG_LEVEL", "debug, info, warning or error", "info"),
    Variable("THREADLINE_LOG_CONTENT", "on: logs show what users and agents say; secrets never", "off; on in dev"),
    Variable("THREADLINE_LOG_LINES_PER_JOB", "lines of an agent, its tools and libraries in one run of a job", "1000"),
    Variable("THREADLINE_EVENT_TTL_SECONDS", "how long a job's log is kept in Redis", "86400"),
    Variable("THREADLINE_EVENT_MAX", "how many events a job's log keeps", "10000"),
    Variable("THREADLINE_ENQUEUE_KEYS", "id:base64key,…: HMAC that jobs from Redis alone must carry", "off"),
    Variable(
        "THREADLINE_ENCRYPTION_KEYS", "id:base64key,… of 32 bytes: the first seals what is stored, all open", "off"
    ),
    Variable("THREADLINE_ENCRYPTION_PLAINTEXT", "read: what was never sealed is read, too, for a migration", "refuse"),
    Variable("THREADLINE_WEBHOOK_SECRETS", "whsec_…,…: all sign webhooks, the newest first", "webhooks are held"),
    Variable("THREADLINE_WEBHOOK_ALLOW", "hosts and networks (CIDR) inside that webhooks may reach, also by http", "–"),
    Variable(
        "THREADLINE_QUEUES", "AGENT=QUEUE,user:ID=QUEUE,…: where a producer's jobs wait; a user's rule wins", "default"
    ),
    Variable("THREADLINE_WORKER_QUEUES", "QUEUE,…: which a worker serves", "those of THREADLINE_QUEUES and default"),
    Variable("THREADLINE_NAMESPACE", "first word of every Redis key, and the Postgres schema", "threadline"),
    Variable("THREADLINE_RECURSION_LIMIT", "super-steps of one run before it is stopped", "500"),
    Variable("THREADLINE_EMBEDDED", "wheels or path: where dev and demo may take the servers from", "both"),
    Variable("THREADLINE_RESEARCH_APPROVE", "plan,publish: what a person approves in every job of research", "–"),
    Variable("THREADLINE_SEARXNG_URL", "a SearXNG with JSON output: gives research web_search", "–"),
    Variable("THREADLINE_FETCH_URL", "1: gives research fetch_url without a web search", "off"),
    Variable("THREADLINE_OFFLINE_TOKENS_PER_SECOND", "pace of the offline model; 0 is as fast as it can", "0"),
    Variable(
        "THREADLINE_MEMORY_ROUTES",
        "folders of agents that outlive a thread: PATH=user|shared|disk:…:r|rw,…",
        "/memories/=user:rw",
    ),
    Variable("THREADLINE_STORE_EMBEDDINGS", "provider:model, or offline: memory is searched by meaning", "off"),
    Variable("THREADLINE_STORE_EMBEDDING_DIMS", "dimensions of its vectors", "the model's own"),
    Variable("THREADLINE_STORE_TTL_MINUTES", "store items expire so long after they were written", "never"),
    Variable("THREADLINE_STORE_TTL_REFRESH", "1: reading an item begins its time anew", "0"),
    Variable("THREADLINE_STORE_SWEEP_SECONDS", "between two looks for expired and unindexed items", "300"),
    Variable("THREADLINE_USER_HASH_KEYS", "base64key,…: users' names in the store, the newest first", "unkeyed"),
    Variable(
        "THREADLINE_RETENTION_COMPACT", "idle for so long (such as 30d), a thread keeps its latest state", "never"
    ),
    Variable("THREADLINE_RETENTION_JOBS", "so long after their end jobs go, with their idempotency keys", "never"),
    Variable("THREADLINE_RETENTION_THREADS", "idle for so long, a thread goes with all that it has", "never"),
    Variable("THREADLINE_RETENTION_WAITING", "1: threads that wait for a person count as idle, too", "0"),
    Variable("THREADLINE_RETENTION_SECONDS", "between two rounds of these, which one worker at a time makes", "300"),
    Variable("THREADLINE_CACHE_DIR", "where the corpus index is kept", "the user's cache folder"),
)
_PREFIX: Final = "THREADLINE_"
_NAMES: Final = frozenset(variable.name for variable in VARIABLES)


def unknown_variables(env: Mapping[str, str]) -> list[str]:
    """A warning for each THREADLINE_ variable that nobody reads, with the nearest known name."""
    warnings = []
    for name in sorted(env):
        if name.startswith(_PREFIX) and name not in _NAMES:
            # The common prefix alone would make any two names look alike.
            own = {known.removeprefix(_PREFIX): known for known in _NAMES}
            near = difflib.get_close_matches(name.removeprefix(_PREFIX), own, n=1, cutoff=0.5)
            warnings.append(f"{name} is not known" + (f"; did you mean {own[near[0]]}?" if near else ""))
    return warnings


def number(env: Mapping[str, str], name: str, default: float, *, least: float = 0.05, most: float = 1e9) -> float:
    """A variable as a number between `least` and `most`; ConfigurationError otherwise."""
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise ConfigurationError(f"{name}={text!r}: give a number between {least:g} and {most:g}")
    return value
