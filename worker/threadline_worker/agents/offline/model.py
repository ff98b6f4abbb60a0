"""A chat model without an LLM: it says the same to the same chat, streams, calls tools and counts its words.

It plays the parts of the research agent and sees nothing but the chat: what it says of a topic, a tool has returned.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from threadline_worker.agents.offline import bystander, critic, leader, researcher
from threadline_worker.agents.offline.conversation import Conversation, Reply, read_conversation
from threadline_worker.agents.research.prompts import CRITIC_ROLE, RESEARCHER_ROLE

# A guard for graphs that feed their own answers back; the roles end long before.
MAX_TURNS = 30
_PIECE = re.compile(r"\S+\s*|\s+")
_ARGS_PIECE_CHARS = 40


class OfflineChatModel(BaseChatModel):
    """See the module. ``tokens_per_second`` slows streaming down so that a person can follow; 0 is no delay."""

    model_name: str = "offline"
    tokens_per_second: float = 0.0
    # Nothing is sent anywhere, so there is no limit to shorten a chat for.
    profile: ModelProfile | None = Field(default_factory=lambda: ModelProfile(max_input_tokens=10_000_000))

    @property
    def _llm_type(self) -> str:
        return "threadline-offline"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,  # noqa: ARG002 - LangChain's signature; the parts choose themselves
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Keep the tools with each call, in OpenAI's form; only their names matter here."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _joined(list(self._stream(messages, stop, run_manager, **kwargs)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _joined([chunk async for chunk in self._astream(messages, stop, run_manager, **kwargs)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - LangChain's signature
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _chunks(messages, kwargs.get("tools") or []):
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - LangChain's signature
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        # Ranking takes milliseconds of processor time, which the loop's other runs should not wait for.
        for chunk in await asyncio.to_thread(_chunks, messages, kwargs.get("tools") or []):
            if self.tokens_per_second:
                await asyncio.sleep(1 / self.tokens_per_second)
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


def _chunks(messages: list[BaseMessage], tools: Sequence[dict[str, Any]]) -> list[ChatGenerationChunk]:
    """Say the whole reply in pieces that share an id; the last one carries the count of words."""
    names = frozenset(str(tool.get("function", {}).get("name")) for tool in tools)
    reply = _reply(read_conversation(messages, names))
    digest = _digest(messages)
    pieces = [AIMessageChunk(content=piece, id=f"offline-{digest}") for piece in _PIECE.findall(reply.text)]
    pieces += _call_pieces(reply, digest)
    usage = UsageMetadata(
        input_tokens=(asked := sum(len(message.text.split()) for message in messages)),
        output_tokens=(said := max(1, len(pieces))),
        total_tokens=asked + said,
    )
    metadata = {"model_name": "offline", "finish_reason": "tool_calls" if reply.calls else "stop"}
    pieces.append(
        AIMessageChunk(
            content="",
            id=f"offline-{digest}",
            usage_metadata=usage,
            response_metadata=metadata,
            chunk_position="last",
        )
    )
    return [ChatGenerationChunk(message=piece) for piece in pieces]


def _call_pieces(reply: Reply, digest: str) -> Iterator[AIMessageChunk]:
    for index, call in enumerate(reply.calls):
        args = json.dumps(call.args, ensure_ascii=False)
        for start in range(0, len(args), _ARGS_PIECE_CHARS):
            head = {"name": call.name, "id": f"call_{digest}_{index}"} if start == 0 else {"name": None, "id": None}
            piece = tool_call_chunk(args=args[start : start + _ARGS_PIECE_CHARS], index=index, **head)
            yield AIMessageChunk(content="", id=f"offline-{digest}", tool_call_chunks=[piece])


def _reply(conversation: Conversation) -> Reply:
    if len(conversation.turns) >= MAX_TURNS:
        return bystander.next_reply(conversation)
    if conversation.tools.issuperset(leader.TOOLS):
        return leader.next_reply(conversation)
    if CRITIC_ROLE in conversation.system:
        return critic.next_reply(conversation)
    if RESEARCHER_ROLE in conversation.system or conversation.tools.intersection(researcher.SEARCH_TOOLS):
        return researcher.next_reply(conversation)
    return bystander.next_reply(conversation)


def _digest(messages: Sequence[BaseMessage]) -> str:
    """Name a reply after all that was said before it: the same chat gives the same ids, a longer one others."""
    digest = hashlib.sha256()
    for message in messages:
        calls = message.tool_calls if isinstance(message, AIMessage) else []
        ids = [getattr(message, "tool_call_id", None), *(call["id"] for call in calls)]
        digest.update(json.dumps([message.type, message.text, ids]).encode())
    return digest.hexdigest()[:16]


def _joined(chunks: list[ChatGenerationChunk]) -> ChatResult:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    said = whole.message
    message = AIMessage(
        content=said.content,
        id=said.id,
        tool_calls=said.tool_calls if isinstance(said, AIMessageChunk) else [],
        usage_metadata=said.usage_metadata if isinstance(said, AIMessageChunk) else None,
        response_metadata=said.response_metadata,
    )
    return ChatResult(generations=[ChatGeneration(message=message)])
