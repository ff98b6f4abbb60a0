"""The programs in docs/tools.md run."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from langchain.tools import ToolRuntime
from langgraph.runtime import ExecutionInfo, Runtime

from support.markdown import ROOT, block, blocks
from threadline_worker.once import OnceError, once_in_memory, tool_key


def program(name: str, **names: Any) -> dict[str, Any]:
    exec(compile(block("docs/tools.md", name), f"docs/tools.md {name}", "exec"), names)  # noqa: S102 - our own document
    return names


def runtime(call_id: str | None = "c1", info: ExecutionInfo | None = None) -> Any:
    info = info or ExecutionInfo(checkpoint_id="c", checkpoint_ns="tools:t1", task_id="t1", thread_id="t")
    return ToolRuntime(
        state={}, context=None, config={}, stream_writer=print, tool_call_id=call_id, store=None, execution_info=info
    )


def test_every_program_is_run_here() -> None:
    found = [each.name for each in blocks(ROOT / "docs" / "tools.md") if each.language == "python"]
    assert found == ["key", "once", "transaction", "test"]
    for name in found:
        program(name)


async def test_the_charge_is_made_once_and_a_declined_one_may_be_tried_again() -> None:
    answers = [SimpleNamespace(declined=True, reason="no money"), SimpleNamespace(declined=False, receipt="r1")]

    async def charge(_cents: int) -> Any:
        return answers.pop(0)

    tool = program("once", bank=SimpleNamespace(charge=charge))["charge"]
    with once_in_memory() as kept:
        with pytest.raises(OnceError, match="no money"):
            await tool.coroutine(cents=5, runtime=runtime())
        for _ in range(2):
            assert await tool.coroutine(cents=5, runtime=runtime()) == "r1"
        kept[tool_key(runtime("c2"))] = None
        assert "ask a person" in await tool.coroutine(cents=5, runtime=runtime("c2"))


def test_the_tests_example_passes() -> None:
    asyncio.run(program("test")["test_a_repeated_step_charges_once"]())


def test_R3_a_key_is_made_of_thread_task_call_and_parts() -> None:
    def info(thread: str | None = "t", task: str = "t1") -> ExecutionInfo:
        return ExecutionInfo(checkpoint_id="c", checkpoint_ns=f"tools:{task}", task_id=task, thread_id=thread)

    keys = [
        tool_key(runtime()),
        tool_key(runtime("c2")),
        tool_key(runtime(info=info(task="t2"))),
        tool_key(runtime(info=info(thread="u"))),
        tool_key(runtime(), "mail"),
        tool_key(Runtime(execution_info=info())),
    ]
    assert len(set(keys)) == len(keys)
    assert tool_key(runtime()) == keys[0]
    # Under another release as well: a step that runs again may do so behind a deploy.
    assert (keys[0], keys[-1]) == ("50604ebf-44c5-50d3-8602-9a8de2f6a7a6", "29282c4a-3513-51a5-97b7-0ca66c07c6ed")
    node = {"configurable": {"thread_id": "t", "checkpoint_ns": "agent:a1|tools:t1"}}
    assert tool_key(node) == keys[-1]


@pytest.mark.parametrize(
    "given", [{}, {"configurable": {"thread_id": "t"}}, Runtime()], ids=["empty", "no task", "runtime"]
)
def test_R3_outside_a_task_there_is_no_key(given) -> None:
    with pytest.raises(OnceError, match="give the graph a checkpointer"):
        tool_key(given)


def test_R3_a_call_without_an_id_has_no_key() -> None:
    with pytest.raises(OnceError, match="through a ToolNode"):
        tool_key(runtime(None))
