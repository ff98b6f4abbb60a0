"""A graph whose steps do what the test orders: fail, hang, block the loop, take the process down.

Like `support.graphs.steps`; once a step is past its gate it carries out the file `<thread>.<step>.do`, if there is one.
`once <order>` removes the file first.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from support.graphs import Steps, _gate, _more

__all__ = ["orders"]


class ProviderError(Exception):
    """As the clients of model providers raise it: with the response's status and headers."""

    def __init__(self, status_code: int, retry_after: str = "") -> None:
        super().__init__(f"HTTP {status_code}")
        self.status_code = status_code
        self.response = type("Response", (), {"headers": {"retry-after": retry_after} if retry_after else {}})()


async def _step(state: Steps, config: RunnableConfig) -> dict[str, Any]:
    thread, number = config["configurable"]["thread_id"], len(state["done"])
    await _gate(thread, number)
    file = Path(os.environ["TEST_GATES"]) / f"{thread}.{number}.do"
    if file.exists():
        order = file.read_text()
        if order.startswith("once "):
            file.unlink()
        await _carry_out(order.removeprefix("once "))
    return {"done": [number]}


async def _carry_out(order: str) -> None:  # noqa: C901 - a table of orders
    verb, _, argument = order.partition(" ")
    match verb:
        case "sleep":
            await asyncio.sleep(float(argument))
        case "block":
            time.sleep(float(argument))
        case "stubborn":  # swallows its cancellation for so long
            end = time.monotonic() + float(argument)
            while time.monotonic() < end:
                try:
                    await asyncio.sleep(0.05)
                except asyncio.CancelledError:
                    continue
        case "abort":
            os.abort()
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "http":
            code, _, retry_after = argument.partition(" ")
            raise ProviderError(int(code), retry_after)
        case "raise":
            raise {"ValueError": ValueError, "ConnectionError": ConnectionError, "TimeoutError": TimeoutError}[
                argument
            ]("as ordered")
        case "nul":
            raise ValueError("a message with a NUL \0 and a lone surrogate \ud800")
        case "cancelled":
            raise asyncio.CancelledError
        case _:
            raise AssertionError(f"unknown order {order!r}")


orders = StateGraph(Steps)
orders.add_node("step", _step)
orders.add_edge(START, "step")
orders.add_conditional_edges("step", _more, ["step", END])
