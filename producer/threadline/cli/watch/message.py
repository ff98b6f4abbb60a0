"""Reads LangChain's messages as they come over the wire; what is not one is None, never an error."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from threadline.cli.output import clean, one_line

__all__ = ["Asked", "Message", "read_message", "read_messages"]

#: Arguments that say most about a call, in this order; else the first that is text or a number.
_TELLING: Final = ("query", "question", "url", "file_path", "path", "pattern", "command", "description")


class Asked(NamedTuple):
    """A tool call that a message asks for."""

    id: str
    name: str
    title: str
    agent: str


class Message(NamedTuple):
    """What a watcher needs of a message; `kind` is `ai`, `chunk` (a piece of a streamed one) or `tool`."""

    kind: str
    id: str
    name: str
    text: str
    asks: list[Asked]
    answers: str
    failed: bool
    tokens: tuple[int, int] | None
    #: Of a piece: the tool that it begins to call, and the piece of its arguments.
    tool: str = ""
    args: str = ""


_KINDS: Final = {"ai": "ai", "AIMessageChunk": "chunk", "tool": "tool"}


def read_messages(value: Any) -> list[Message]:
    """The messages of a state update: a list, or one alone."""
    values = value if isinstance(value, list) else [value]
    return [message for item in values if (message := read_message(item)) is not None]


def read_message(value: Any) -> Message | None:
    """A message of the model or of a tool; None for people's messages and for anything else."""
    if not isinstance(value, dict) or not isinstance(data := value.get("data"), dict):
        return None
    if (kind := _KINDS.get(str(value.get("type")))) is None:
        return None
    calls = data.get("tool_calls")
    tool, args = _begun(data.get("tool_call_chunks")) if kind == "chunk" else ("", "")
    return Message(
        kind=kind,
        id=_word(data.get("id")),
        name=_word(data.get("name")),
        text=clean(_text(data.get("content"))),
        asks=[asked for call in calls if (asked := _asked(call)) is not None] if isinstance(calls, list) else [],
        answers=_word(data.get("tool_call_id")),
        failed=data.get("status") == "error",
        tokens=_tokens(data.get("usage_metadata")),
        tool=tool,
        args=args,
    )


def _asked(call: Any) -> Asked | None:
    if not isinstance(call, dict) or not call.get("id"):
        return None
    args = call.get("args")
    args = args if isinstance(args, dict) else {}
    return Asked(
        id=str(call["id"]),
        name=_word(call.get("name")) or "?",
        title=_title(args),
        agent=_word(args.get("subagent_type")),
    )


def _begun(chunks: Any) -> tuple[str, str]:
    """The last call that a piece is about: its tool, where this piece names it, and what came of its arguments."""
    last = chunks[-1] if isinstance(chunks, list) and chunks else None
    if not isinstance(last, dict):
        return "", ""
    args = last.get("args")
    return _word(last.get("name")), args if isinstance(args, str) else ""


def _title(args: dict[str, Any]) -> str:
    for name in (*(name for name in _TELLING if name in args), *args):
        value = args[name]
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return one_line(str(value))
    return ""


def _text(content: Any) -> str:
    """The text of a message; of a list of blocks, the blocks that are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    pieces = [block if isinstance(block, str) else _block_text(block) for block in content]
    return "".join(pieces)


def _block_text(block: Any) -> str:
    text = block.get("text") if isinstance(block, dict) and block.get("type", "text") == "text" else None
    return text if isinstance(text, str) else ""


def _tokens(usage: Any) -> tuple[int, int] | None:
    if not isinstance(usage, dict):
        return None
    given, made = usage.get("input_tokens"), usage.get("output_tokens")
    return (given if isinstance(given, int) else 0, made if isinstance(made, int) else 0)


def _word(value: Any) -> str:
    return one_line(value) if isinstance(value, str) else ""
