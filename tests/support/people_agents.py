"""A deep agent that asks people from everywhere: the leader, and two subagents at once, one of them for two calls.

Each tool that runs leaves a line `<thread> <what>` in `$TEST_GATES/effects`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepagents import SubAgent, create_deep_agent
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.config import get_config

__all__ = ["each", "office"]


class _Clerk(BaseChatModel):
    """Makes its calls once, then repeats what came of them."""

    calls: list[tuple[str, dict[str, Any]]]

    @property
    def _llm_type(self) -> str:
        return "clerk"

    def bind_tools(self, tools: Any, **_options: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *_rest: Any, **_options: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._say(messages))])

    def _say(self, messages: Sequence[BaseMessage]) -> AIMessage:
        if answers := [message.text for message in messages if message.type == "tool"]:
            return AIMessage(" | ".join(answers))
        numbered = enumerate(self.calls)
        return AIMessage(
            "", tool_calls=[{"name": name, "args": args, "id": f"{name}-{n}"} for n, (name, args) in numbered]
        )


@tool
async def send(text: str) -> str:
    """Send a letter."""
    thread = get_config()["configurable"]["thread_id"]
    folder = Path(os.environ["TEST_GATES"])
    folder.mkdir(exist_ok=True)
    with (folder / "effects").open("a") as effects:
        effects.write(f"{thread} {text}\n")
    return f"sent {text}"


@tool
async def ask_user(question: str) -> str:
    """Ask a person."""
    raise AssertionError(f"a person answers {question}")


def _subagent(name: str, *calls: tuple[str, dict[str, Any]]) -> SubAgent:
    return SubAgent(
        name=name,
        description=name,
        system_prompt=name,
        model=_Clerk(calls=list(calls)),
        tools=[send, ask_user],
        interrupt_on={"send": True, "ask_user": {"allowed_decisions": ["respond"]}},
    )


_task = [("task", {"description": "go", "subagent_type": name}) for name in ("post", "desk")]
office = create_deep_agent(
    _Clerk(calls=[("send", {"text": "leader"}), *_task]),
    tools=[send],
    interrupt_on={"send": True},
    subagents=[
        _subagent("post", ("send", {"text": "one"}), ("send", {"text": "two"})),
        _subagent("desk", ("ask_user", {"question": "which?"})),
    ],
)

#: asks for each call by itself
each = create_agent(
    _Clerk(calls=[("send", {"text": "one"}), ("send", {"text": "two"})]),
    tools=[send],
    middleware=[HumanInTheLoopMiddleware({"send": True}, interrupt_mode="per_call")],
)
