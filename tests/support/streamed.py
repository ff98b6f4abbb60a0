"""A deep agent whose scripted model streams, with a subagent and tools; `ping 3` waits while a test closes its gate.

The gate is the file `<thread>.ping3` in `$TEST_GATES`.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from deepagents import SubAgent, create_deep_agent
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, SystemMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph

__all__ = ["streamed", "typist"]

_USAGE = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}


class Scripted(BaseChatModel):
    """The boss gives three tools their work, the helper one; then both have a last word."""

    profile: ModelProfile | None = ModelProfile(max_input_tokens=1_000_000)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_more: Any) -> Any:
        return self

    def _generate(self, *_arguments: Any, **_more: Any) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(self, messages: list[BaseMessage], *_arguments: Any, **_more: Any) -> ChatResult:
        chunks = [chunk.message async for chunk in self._astream(messages)]
        whole = chunks[0] + chunks[1:]
        return ChatResult(generations=[ChatGeneration(message=AIMessage(**whole.model_dump(exclude={"type"})))])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **_more: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        helps = any("You help." in str(message.content) for message in messages if isinstance(message, SystemMessage))
        worked = any(isinstance(message, ToolMessage) for message in messages)
        words = ["A ", "few ", "words ", "of ", "help." if helps else "the boss."]
        calls: list[tuple[str, dict[str, Any]]] = []
        if not worked:
            task = {"description": "Help with the work.", "subagent_type": "helper"}
            calls = [("ping", {"n": 3})] if helps else [("task", task), ("ping", {"n": 1}), ("ping", {"n": 2})]
        parts: list[dict[str, Any]] = [{"content": word} for word in words]
        for index, (name, arguments) in enumerate(calls):
            text = json.dumps(arguments)
            call = {"name": name, "id": f"{name}-{arguments.get('n', 0)}", "index": index}
            parts.append({"tool_call_chunks": [tool_call_chunk(args="", **call)]})
            parts += [
                {"tool_call_chunks": [tool_call_chunk(args=text[at : at + 4], index=index)]}
                for at in range(0, len(text), 4)
            ]
        parts.append({"usage_metadata": _USAGE, "response_metadata": {"model_name": "scripted"}})
        for part in parts:
            chunk = ChatGenerationChunk(message=AIMessageChunk(**{"content": "", **part}))
            if run_manager:
                await run_manager.on_llm_new_token("", chunk=chunk)
            yield chunk


@tool
async def ping(n: int, config: RunnableConfig) -> str:
    """Answer."""
    get_stream_writer()({"ping": n})
    gate = Path(os.environ["TEST_GATES"]) / f"{config['configurable']['thread_id']}.ping{n}"
    if gate.exists():
        (gate.parent / f"{gate.name}.begun").touch()
    while gate.exists():
        await asyncio.sleep(0.01)
    return f"pong {n}"


_helper = SubAgent(name="helper", description="helps", system_prompt="You help.", tools=[ping])
streamed = create_deep_agent(Scripted(), tools=[ping], system_prompt="You lead.", subagents=[_helper], name="boss")


async def _type(_state: MessagesState) -> dict[str, Any]:
    """As many tokens as the test's environment says, as fast as they can be made."""
    model = Typing(count=int(os.environ.get("TEST_TOKENS", "1000")))
    return {"messages": [await model.ainvoke("go")]}


class Typing(Scripted):
    count: int

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **_more: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for number in range(self.count):
            chunk = ChatGenerationChunk(message=AIMessageChunk(f"w{number} "))
            if run_manager:
                await run_manager.on_llm_new_token("", chunk=chunk)
            yield chunk
            await asyncio.sleep(0)


typist = StateGraph(MessagesState)
typist.add_node("type", _type)
typist.add_edge(START, "type")
typist.add_edge("type", END)
