"""What LangChain says of a call, in OpenTelemetry's names for generative AI: names and numbers, never contents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

__all__ = ["Attributes", "model_asked", "model_said", "short", "tool_called"]

Attributes = dict[str, str | int | bool | Sequence[str]]

_LONGEST: Final = 200


def model_asked(
    serialized: Mapping[str, Any] | None, metadata: Mapping[str, Any], more: Mapping[str, Any]
) -> tuple[str, Attributes]:
    """A model call's span: its name, and which model of which provider it is for."""
    asked = more.get("invocation_params") or {}
    name = metadata.get("ls_model_name") or asked.get("model") or asked.get("model_name")
    model = short(name or (serialized or {}).get("name") or more.get("name") or "model")
    attributes: Attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": model}
    if isinstance(provider := metadata.get("ls_provider"), str):
        attributes["gen_ai.provider.name"] = short(provider)
    return f"chat {model}", attributes


def model_said(response: LLMResult) -> Attributes:
    """What an answer says of the model and of its tokens."""
    found: Attributes = {}
    for generation in (generations[0] for generations in response.generations if generations):
        message = generation.message if isinstance(generation, ChatGeneration) else None
        if not isinstance(message, AIMessage):
            continue
        if message.usage_metadata is not None:
            found["gen_ai.usage.input_tokens"] = message.usage_metadata["input_tokens"]
            found["gen_ai.usage.output_tokens"] = message.usage_metadata["output_tokens"]
        said = message.response_metadata
        if isinstance(model := said.get("model_name"), str):
            found["gen_ai.response.model"] = short(model)
        if isinstance(why := said.get("finish_reason") or said.get("stop_reason"), str):
            found["gen_ai.response.finish_reasons"] = [short(why)]
    return found


def tool_called(serialized: Mapping[str, Any] | None, more: Mapping[str, Any]) -> tuple[str, Attributes]:
    """A tool call's span: its name, the tool and the call's id."""
    name = short((serialized or {}).get("name") or more.get("name") or "tool")
    attributes: Attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name}
    if isinstance(call := more.get("tool_call_id"), str):
        attributes["gen_ai.tool.call.id"] = short(call)
    return f"execute_tool {name}", attributes


def short(text: Any) -> str:
    """At most 200 characters of it."""
    return str(text)[:_LONGEST]
