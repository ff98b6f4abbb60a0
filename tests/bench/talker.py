"""The graph of `bench.blackhole`: talks until it is told to be silent, and keeps nothing of what it said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final, TypedDict

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langgraph.graph import END, START, StateGraph

from support.streamed import Scripted

__all__ = ["talker"]

#: A message is a second of it or so.
_CHUNKS: Final = 200


class Speech(TypedDict):
    """Chunks of `size` characters, `pause` seconds apart, until the monotonic clock says `until`; a message a step."""

    size: int
    pause: float
    until: float
    said: int


class _Talking(Scripted):
    size: int
    pause: float

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **_more: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        due = time.monotonic()
        for number in range(_CHUNKS):
            due += self.pause
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=f"{number} ".ljust(self.size, "x")))
            if run_manager:
                await run_manager.on_llm_new_token("", chunk=chunk)
            yield chunk


async def _talk(state: Speech) -> dict[str, Any]:
    await _Talking(size=state["size"], pause=state["pause"]).ainvoke("go")
    return {"said": state["said"] + 1}


talker = StateGraph(Speech)
talker.add_node("talk", _talk)
talker.add_edge(START, "talk")
talker.add_conditional_edges("talk", lambda state: END if time.monotonic() >= state["until"] else "talk", ["talk", END])
