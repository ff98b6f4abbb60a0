"""Counts the tokens that models report, once for each model call, subagents included, whatever the job streams."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from threadline_worker.telemetry.metrics import Metrics

__all__ = ["TokenCounter"]

_MAX_MODEL_NAME = 100


class TokenCounter(BaseCallbackHandler):
    """Adds up the `usage_metadata` of one agent's model calls; a call that runs again after a crash is paid again."""

    run_inline = True
    ignore_chain = True
    ignore_agent = True
    ignore_retriever = True
    ignore_custom_event = True

    def __init__(self, metrics: Metrics, agent: str) -> None:
        self._metrics = metrics
        self._agent = agent

    def on_llm_end(self, response: LLMResult, **_more: Any) -> None:
        """A model has answered. A call may have had several prompts."""
        for generations in response.generations:
            for generation in generations[:1]:
                if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
                    self._count(generation.message)

    def _count(self, message: AIMessage) -> None:
        usage = message.usage_metadata
        if usage is None:
            return
        model = str(message.response_metadata.get("model_name") or "unknown")[:_MAX_MODEL_NAME]
        counter = self._metrics.tokens
        counter.labels(agent=self._agent, model=model, kind="input").inc(usage["input_tokens"])
        counter.labels(agent=self._agent, model=model, kind="output").inc(usage["output_tokens"])
