"""Chosen keys of the state, shared between an agent and its subagents, without a model service."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from deepagents import create_deep_agent
from langchain_core.messages import AIMessage

from threadline_worker.memory import SharedStateMiddleware
from threadline_worker.memory.shared_state import merge_shared

sys.path.append(str(Path(__file__).parents[3] / "docs" / "examples"))
from scripted import Scripted, call


def test_merging_twice_is_merging_once() -> None:
    for known, new in (
        ({"a": 1}, {"b": [2]}),
        ([1, {"x": 1}], [{"x": 1}, 2]),
        ({"a": {"b": [1]}}, {"a": {"b": [2]}}),
        (None, "x"),
        ("x", None),
    ):
        once = merge_shared(known, new)
        assert merge_shared(once, new) == once
        assert merge_shared(known, once) == once
    assert merge_shared({"a": {"b": [1]}}, {"a": {"b": [2]}}) == {"a": {"b": [1, 2]}}


@pytest.mark.parametrize("keys", [(), ("messages",), ("files",), ("not a name",), ("_private",)])
def test_keys_that_cannot_be_shared_are_refused(keys: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="state keys"):
        SharedStateMiddleware(*keys)


async def test_subagents_see_and_change_what_is_shared_in_parallel() -> None:
    seen: dict[str, list[str]] = {}

    def told(messages: Any) -> str:
        return next((message.text for message in messages if message.type == "system"), "")

    def worker(name: str) -> Any:
        def script(messages: Any) -> AIMessage:
            seen.setdefault(name, []).append(told(messages))
            if messages[-1].type == "human":
                return call("share", key="facts", value={name: "found"})
            return AIMessage(f"{name} is done")

        return {
            "name": name,
            "description": name,
            "system_prompt": name,
            "model": Scripted(script=script),
            "tools": [],
            "middleware": [SharedStateMiddleware("facts", "notes")],
        }

    def main(messages: Any) -> AIMessage:
        seen.setdefault("main", []).append(told(messages))
        answers = [message for message in messages if message.type == "tool"]
        if not answers:
            both = call("task", description="go", subagent_type="one").tool_calls
            both += [{**call("task", description="go", subagent_type="two").tool_calls[0], "id": "second"}]
            return AIMessage("", tool_calls=both)
        if len(answers) == 2:
            return call("share", key="nosuch", value=1)
        return AIMessage("done")

    agent = create_deep_agent(
        Scripted(script=main),
        subagents=[worker("one"), worker("two")],
        middleware=[SharedStateMiddleware("facts", "notes")],
    )
    values = await agent.ainvoke(
        {"messages": [("user", "go")], "facts": {"main": "given"}, "notes": ["n"]}, {"recursion_limit": 50}
    )
    assert values["facts"] == {"main": "given", "one": "found", "two": "found"}
    assert values["notes"] == ["n"]  # came back from both, and counts once
    assert json.dumps({"main": "given"})[1:-1] in seen["one"][0]
    assert '"one": "found"' in seen["main"][1]
    assert '"two": "found"' in seen["main"][1]
    assert "not shared" in values["messages"][-2].text
