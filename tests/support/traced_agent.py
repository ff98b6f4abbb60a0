"""A deep agent with a scripted model, one subagent and tools that stand at gates, for tests of traces.

The leader lets the subagent `alpha` look (model, `note`, model), then calls `wait`, then ends.
`wait` stands still while the file `<thread>.wait` exists in `$TEST_GATES`. Whatever is said has the word CANARY in it.
"""
# No postponed annotations here: LangChain reads those of tools at run time.

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from deepagents import SubAgent, create_deep_agent
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, tool
from langgraph.config import get_config

__all__ = ["SECRET_WORD", "traced"]

SECRET_WORD: Final = "CANARY"
_STEPS: Final[dict[str, list[tuple[str, dict[str, Any]] | None]]] = {
    "leader": [
        ("task", {"description": f"look into {SECRET_WORD}", "subagent_type": "alpha"}),
        ("wait", {"why": f"for {SECRET_WORD}"}),
        None,
    ],
    "alpha": [("note", {"text": f"of {SECRET_WORD}"}), None],
}


class Scripted(BaseChatModel):
    """Says what `_STEPS` has for it, and reports 7 tokens in and 3 out."""

    profile: ModelProfile | None = ModelProfile(max_input_tokens=1_000_000)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {**super()._get_ls_params(stop, **kwargs), "ls_provider": "tests", "ls_model_name": "scripted-1"}

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
        who = next(name for name in _STEPS if f"you are {name}" in messages[0].text)
        turn = sum(isinstance(message, AIMessage) for message in messages)
        step = _STEPS[who][turn]
        message = AIMessage(
            content="" if step else f"{who} knows {SECRET_WORD}",
            id=f"{who}-{turn}",
            tool_calls=[{"name": step[0], "args": step[1], "id": f"{who}-{turn}-0"}] if step else [],
            usage_metadata={"input_tokens": 7, "output_tokens": 3, "total_tokens": 10},
            response_metadata={"model_name": "scripted-1-today", "finish_reason": "stop"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages, stop, None, **kwargs)


@tool
def note(text: str) -> str:
    """Note something, in a thread; and record a span of its own."""
    from opentelemetry import trace

    with trace.get_tracer("tests").start_as_current_span("own span of a tool"):
        return f"noted: {text}"


@tool
async def wait(why: str) -> str:
    """Wait at the gate."""
    thread = get_config()["configurable"]["thread_id"]
    folder = Path(os.environ["TEST_GATES"])
    with (folder / "effects").open("a") as effects:
        effects.write(f"{thread} 0 {os.getpid()}\n")
    while (folder / f"{thread}.wait").exists():
        await asyncio.sleep(0.01)
    return f"waited {why}"


traced = create_deep_agent(
    Scripted(),
    tools=[note, wait],
    system_prompt="you are leader",
    subagents=[SubAgent(name="alpha", description="knows alpha", system_prompt="you are alpha", tools=[note])],
)
