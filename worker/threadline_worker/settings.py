"""What a worker reads from the environment: checked once at the start, and no password is ever shown."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import msgspec

from threadline.contract.queues import DEFAULT_QUEUE, parse_queues
from threadline.environment import number
from threadline.errors import ConfigurationError
from threadline.settings import ClientSettings
from threadline_worker.memory.routes import check_folders
from threadline_worker.memory.settings import MemorySettings
from threadline_worker.retention.settings import RetentionSettings
from threadline_worker.webhooks.settings import WebhookSettings

__all__ = ["WorkerSettings"]

_LEVELS = ("debug", "info", "warning", "error")


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All durations are seconds; `direct_url` goes past a pooler that stands before `database_url`.

    Defaults and meanings: threadline.environment.VARIABLES.
    """

    client: ClientSettings
    redis_url: str
    database_url: str
    direct_url: str
    agents: str = ""
    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    concurrency: int = 10
    heartbeat: float = 1.0
    lease: float = 15.0
    job_timeout: float = 3600.0
    step_timeout: float = 600.0
    loop_stall: float = 300.0
    drain: float = 25.0
    recursion_limit: int = 500
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    log_format: str | None = None
    log_level: str = "info"
    log_content: bool = False
    log_lines: int = 1000
    webhooks: WebhookSettings = WebhookSettings()
    memory: MemorySettings = MemorySettings()
    retention: RetentionSettings = RetentionSettings()
    env: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def transaction_timeout(self) -> float:
        """F3: what a frozen worker has locked is free again before anybody may take it for dead by its silence."""
        return max(0.8 * self.lease, 1.0)

    @classmethod
    def from_env(
        cls, env: Mapping[str, str] = os.environ, *, concurrency: int | None = None, queues: Sequence[str] = ()
    ) -> WorkerSettings:
        """Read the environment; an argument comes before its variable. Raises ConfigurationError that names it."""
        client = ClientSettings.from_env(env)
        heartbeat = number(env, "THREADLINE_HEARTBEAT_SECONDS", 1.0)
        lease = number(env, "THREADLINE_LEASE_SECONDS", 15.0)
        if lease < 2 * heartbeat:
            raise ConfigurationError(
                f"THREADLINE_LEASE_SECONDS={lease:g} is under two heartbeats ({heartbeat:g} s each): raise the lease"
            )
        memory = MemorySettings.from_env(env)
        check_folders(memory.routes)
        port = env.get("THREADLINE_METRICS_PORT")
        return cls(
            client=client,
            redis_url=client.redis_url or _missing("REDIS_URL"),
            database_url=client.database_url or _missing("DATABASE_URL"),
            direct_url=client.direct_url or "",
            agents=env.get("THREADLINE_AGENTS", ""),
            queues=_queues(env, queues) or client.queues.names,
            concurrency=concurrency or int(number(env, "THREADLINE_CONCURRENCY", 10, least=1, most=10_000)),
            heartbeat=heartbeat,
            lease=lease,
            job_timeout=number(env, "THREADLINE_JOB_TIMEOUT_SECONDS", 3600.0),
            step_timeout=number(env, "THREADLINE_STEP_TIMEOUT_SECONDS", 600.0),
            loop_stall=number(env, "THREADLINE_LOOP_STALL_SECONDS", 300.0),
            drain=number(env, "THREADLINE_DRAIN_SECONDS", 25.0, least=0),
            recursion_limit=int(number(env, "THREADLINE_RECURSION_LIMIT", 500, least=1)),
            metrics_host=env.get("THREADLINE_METRICS_HOST") or "127.0.0.1",
            metrics_port=None if not port else int(number(env, "THREADLINE_METRICS_PORT", 0, least=0, most=65_535)),
            log_format=_choice(env, "THREADLINE_LOG_FORMAT", ("json", "console")),
            log_level=_choice(env, "THREADLINE_LOG_LEVEL", _LEVELS) or "info",
            log_content=_log_content(env, sealed=client.vault.on),
            log_lines=int(number(env, "THREADLINE_LOG_LINES_PER_JOB", 1000, least=0)),
            webhooks=WebhookSettings.from_env(env),
            memory=memory,
            retention=RetentionSettings.from_env(env),
            env=dict(env),
        )


def _missing(name: str) -> str:
    raise ConfigurationError(
        f"{name} is not set: set it, or run `threadline dev`, which starts the servers and prints it"
    )


def _queues(env: Mapping[str, str], given: Sequence[str]) -> tuple[str, ...]:
    if given:
        return parse_queues(",".join(given), "--queue")
    return parse_queues(env.get("THREADLINE_WORKER_QUEUES", ""))


def _log_content(env: Mapping[str, str], *, sealed: bool) -> bool:
    shown = _choice(env, "THREADLINE_LOG_CONTENT", ("on", "off")) == "on"
    if shown and sealed:
        raise ConfigurationError(
            "THREADLINE_LOG_CONTENT=on would write into the log in the clear what THREADLINE_ENCRYPTION_KEYS seals"
            " everywhere else: unset one of them"
        )
    return shown


def _choice(env: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str | None:
    value = env.get(name, "").strip().lower()
    if value and value not in allowed:
        raise ConfigurationError(f"{name}={value!r}: use one of {', '.join(allowed)}")
    return value or None
