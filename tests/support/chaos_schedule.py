"""What goes wrong when: all of it follows from the seed, so that a run can be repeated as far as machines allow."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from support.chaos_failpoints import POINTS

__all__ = ["DECK", "Fault", "make_schedule"]

#: Every kind of fault, in one deck; a schedule deals it out shuffled, again and again. Twice: what kills most often.
DECK: tuple[str, ...] = (
    "kill",
    "kill",
    "crash_at",
    "crash_at",
    "crash_at",
    "stop_mid_write",
    "freeze",
    "block_loop",
    "hold_gil",
    "terminate",
    "drain_exceeded",
    "partition",
    "reset_connections",
    "slow_postgres",
    "mute_postgres",
    "refuse_redis",
    "redis_restart_empty",
    "redis_flushall",
    "redis_blackhole_one",
    "redis_blackhole_all",
    "redis_pubsub_kill",
    "redis_full",
    "postgres_restart",
    "postgres_blackhole_one",
    "postgres_outage",
    "postgres_lost_answer",
    "postgres_exhausted",
    "clock",
    "poison",
    "memory_bomb",
    "claim_answer_lost",
    "two_jobs_one_thread",
    "cancel_then_death",
    "retry_race",
    "equal_enqueues",
    "hostile_messages",
)


class Fault(NamedTuple):
    """`at` seconds after the start; `worker` and `seconds` for the kinds that need them; `detail` is a failpoint."""

    at: float
    kind: str
    worker: int
    seconds: float
    detail: str

    def __str__(self) -> str:
        return f"{self.at:7.1f} s  {self.kind:<22} w{self.worker}  {self.seconds:4.1f} s  {self.detail}".rstrip()


def make_schedule(
    seed: int, seconds: float, workers: int, lease: float, *, deck: Sequence[str] = DECK, every: float = 2.0
) -> list[Fault]:
    """Faults for so many seconds, one about each `every`; some overlap, for they last."""
    rng = random.Random(seed)
    faults: list[Fault] = []
    at, cards = 1.0, []  # type: float, list[str]
    while at < seconds:
        if not cards:
            cards = rng.sample(deck, len(deck))
        kind = cards.pop()
        lasts = {
            "freeze": lease + 2.5,
            "stop_mid_write": lease + 2.5,
            "partition": lease + 2.5,
            "block_loop": lease + 1.0,
            "hold_gil": lease + 2.5,
            "postgres_outage": lease + 1.0,
        }.get(kind, rng.uniform(0.5, lease))
        detail = rng.choice(POINTS) if kind == "crash_at" else ""
        # Four seconds off is near enough to claim: then the order of checkpoint ids is at stake (F4).
        detail = f"{rng.choice((-60, -4, 4, 60)):+d}" if kind == "clock" else detail
        detail = rng.choice(("", "COMMIT")) if kind == "postgres_lost_answer" else detail
        faults.append(Fault(round(at, 2), kind, rng.randrange(workers), round(lasts, 2), detail))
        at += rng.uniform(0.5, 1.5) * every
    return faults
