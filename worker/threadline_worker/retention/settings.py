"""What a worker reads about retention from the environment: ages as people write them, checked once."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from threadline.calls.prune import Ages
from threadline.contract.age import parse_age
from threadline.environment import number
from threadline.errors import ConfigurationError, InvalidJob

__all__ = ["RetentionSettings"]


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`ages` None keeps things for ever; `interval` seconds lie between two rounds."""

    ages: Ages = Ages()
    interval: float = 300.0

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> RetentionSettings:
        """Read THREADLINE_RETENTION_…. Raises ConfigurationError that names the variable."""
        waiting = env.get("THREADLINE_RETENTION_WAITING", "").strip()
        if waiting not in {"", "0", "1"}:
            raise ConfigurationError(f"THREADLINE_RETENTION_WAITING={waiting!r}: use 1 or 0")
        return cls(
            ages=Ages(
                compact=_age(env, "THREADLINE_RETENTION_COMPACT"),
                jobs=_age(env, "THREADLINE_RETENTION_JOBS"),
                threads=_age(env, "THREADLINE_RETENTION_THREADS"),
                waiting=waiting == "1",
            ),
            interval=number(env, "THREADLINE_RETENTION_SECONDS", 300.0),
        )


def _age(env: Mapping[str, str], name: str) -> float | None:
    text = env.get(name, "").strip()
    try:
        return parse_age(text) if text else None
    except InvalidJob as error:
        raise ConfigurationError(f"{name}: {error}") from error
