"""Agents for `bench.tokens`; with `BENCH_COALESCE=off` in its environment a worker publishes each token alone."""

from __future__ import annotations

import os

from bench import unpublished
from support.streamed import typist
from threadline_worker import coalesce

__all__ = ["typist"]

unpublished.install()  # in their worker

if os.environ.get("BENCH_COALESCE") == "off":
    coalesce._joinable = lambda _chunk: False  # type: ignore[assignment]  # the fault that is measured
