"""Counts the tokens that models report in their messages' `usage_metadata`, subagents included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.messages import AIMessage

from threadline_worker.telemetry.metrics import Metrics

__all__ = ["count_tokens"]


def count_tokens(metrics: Metrics, agent: str, updates: Any) -> None:
    """Add up one `updates` part: `{node: state update}`."""
    for message in _messages(updates):
        usage = message.usage_metadata
        if usage is None:
            continue
        model = str(message.response_metadata.get("model_name") or "unknown")[:100]
        metrics.tokens.labels(agent=agent, model=model, kind="input").inc(usage["input_tokens"])
        metrics.tokens.labels(agent=agent, model=model, kind="output").inc(usage["output_tokens"])


def _messages(updates: Any) -> Iterable[AIMessage]:
    if not isinstance(updates, Mapping):
        return
    for update in updates.values():
        messages = update.get("messages") if isinstance(update, Mapping) else None
        for message in messages if isinstance(messages, list) else ():
            if isinstance(message, AIMessage):
                yield message
