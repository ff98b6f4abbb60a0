"""A real deep agent with a scripted model, for the crash sweep: two subagents, parallel tools, a todo list, files, and
a tool that a person must approve. Each model call and each tool call leaves a line outside all databases.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from deepagents import SubAgent, create_deep_agent
from deepagents.backends import StateBackend
from deepagents.middleware.subagents import DEFAULT_SUBAGENT_PROMPT
from langchain.agents.middleware import TodoListMiddleware
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, tool
from langgraph.config import get_config

__all__ = ["STEPS", "deep"]

Call = tuple[str, dict[str, Any]]


def _todos(*states: str) -> Call:
    return "write_todos", {"todos": [{"content": f"part {n}", "status": state} for n, state in enumerate(states)]}


#: Who says what in which turn: the calls of its message, or its last words.
STEPS: Final[dict[str, list[list[Call] | str]]] = {
    "leader": [
        [
            _todos("in_progress", "pending"),
            ("task", {"description": "look into alpha", "subagent_type": "alpha"}),
            ("task", {"description": "look into beta", "subagent_type": "beta"}),
            ("note", {"text": "leader"}),
        ],
        [
            _todos("completed", "in_progress"),
            ("write_file", {"file_path": "/report.md", "content": "alpha and beta"}),
            ("send", {"text": "the report"}),
        ],
        [_todos("completed", "completed"), ("read_file", {"file_path": "/report.md"})],
        "all is done",
    ],
    "alpha": [
        [("note", {"text": "alpha 1"}), ("note", {"text": "alpha 2"})],
        [("write_file", {"file_path": "/alpha.md", "content": "of alpha"})],
        "alpha is well",
    ],
    "beta": [
        [("note", {"text": "beta 1"}), ("write_file", {"file_path": "/beta.md", "content": "of beta"})],
        "beta is well",
    ],
}


def _effect(what: str) -> None:
    thread = get_config()["configurable"]["thread_id"]
    with (Path(os.environ["TEST_GATES"]) / "effects").open("a") as effects:
        effects.write(f"{thread} {what}\n")


class Scripted(BaseChatModel):
    """Says what `STEPS` has for it; which turn it is follows from the messages alone."""

    profile: ModelProfile | None = ModelProfile(max_input_tokens=1_000_000)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The script knows its tools."""
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        system = messages[0].text
        who = next(name for name in STEPS if f"you are {name}" in system)
        turn = sum(isinstance(message, AIMessage) for message in messages)
        _effect(f"model {who} {turn}")
        step = STEPS[who][turn]
        calls = [] if isinstance(step, str) else step
        message = AIMessage(
            content=step if isinstance(step, str) else "",
            id=f"{who}-{turn}",
            tool_calls=[
                {"name": name, "args": args, "id": f"{who}-{turn}-{number}"}
                for number, (name, args) in enumerate(calls)
            ],
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages, stop, None, **kwargs)  # not in a thread: where it dies should be decided here


@tool
async def note(text: str) -> str:
    """Leave a line."""
    _effect(f"tool {text.replace(' ', '-')}")
    return f"noted: {text}"


@tool
async def send(text: str) -> str:
    """Send something; a person must approve."""
    _effect("tool send")
    return f"sent: {text}"


def _subagent(name: str) -> SubAgent:
    return SubAgent(
        name=name, description=f"knows {name}", system_prompt=f"you are {name}. {DEFAULT_SUBAGENT_PROMPT}", tools=[note]
    )


deep = create_deep_agent(
    Scripted(),
    tools=[note, send],
    system_prompt="you are leader",
    middleware=[TodoListMiddleware()],
    subagents=[_subagent("alpha"), _subagent("beta")],
    backend=StateBackend(),
    interrupt_on={"send": True},
)
