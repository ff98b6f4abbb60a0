"""The examples' model: the one of THREADLINE_MODEL, or without a real one a few lines that play its part."""
# ruff: noqa: INP001 - examples are no package

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

__all__ = ["Scripted", "Talking", "call", "model_or", "results"]

SECONDS_PER_WORD = 0.06


class Scripted(BaseChatModel):
    """Says what `script` makes of the messages so far."""

    script: Callable[[Sequence[BaseMessage]], AIMessage]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_options: Any) -> Any:  # noqa: ARG002 - the script knows its tools
        """Itself."""
        return self

    def _generate(self, messages: list[BaseMessage], *_rest: Any, **_options: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.script(messages))])


class Talking(Scripted):
    """The same word by word, as fast as people read."""

    def _stream(self, messages: list[BaseMessage], *_rest: Any, **_options: Any) -> Iterator[ChatGenerationChunk]:
        for word in re.findall(r"\S+\s*", self.script(messages).text):
            time.sleep(SECONDS_PER_WORD)
            yield ChatGenerationChunk(message=AIMessageChunk(word))


def model_or(script: Callable[[Sequence[BaseMessage]], AIMessage], kind: type[Scripted] = Scripted) -> BaseChatModel:
    """The model of THREADLINE_MODEL; `script` if that is unset or `offline`."""
    spec = os.environ.get("THREADLINE_MODEL", "offline")
    if spec in ("", "offline"):
        return kind(script=script)
    return init_chat_model(spec)


def call(tool: str, **arguments: Any) -> AIMessage:
    """A model's wish to call a tool."""
    return AIMessage("", tool_calls=[{"name": tool, "args": arguments, "id": f"call-{tool}"}])


def results(messages: Sequence[BaseMessage]) -> list[str]:
    """What tools have answered since the last question."""
    last = max(place for place, message in enumerate(messages) if message.type == "human")
    return [message.text for message in messages[last:] if message.type == "tool"]
