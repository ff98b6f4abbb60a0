"""The steps of the graph."""

import os
import re
from functools import lru_cache

from langchain.chat_models import init_chat_model
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.runtime import Runtime

from my_agent.utils.state import AgentState, ContextSchema
from my_agent.utils.tools import ORDERS, look_up

MODELS = {"anthropic": "anthropic:claude-sonnet-4-5", "openai": "openai:gpt-5"}


@lru_cache(maxsize=4)
def _get_model(name: str) -> Runnable[LanguageModelInput, AIMessage]:
    return init_chat_model(MODELS[name]).bind_tools([look_up])


def call_model(state: AgentState, config: RunnableConfig, runtime: Runtime[ContextSchema]) -> dict:
    """Answer, or look an order up first."""
    if runtime.context.model_name != "scripted":
        return {"messages": [_get_model(runtime.context.model_name).invoke(state["messages"])]}
    last = state["messages"][-1]
    if last.type == "human" and (number := re.search(r"\d+", str(last.content))):
        call = {"name": "look_up", "args": {"number": int(number[0])}, "id": f"call-{len(state['messages'])}"}
        return {"messages": [AIMessage("", tool_calls=[call])], "order": ORDERS.get(int(number[0]))}
    if last.type == "tool":
        order = state["order"]
        price = f"0 {os.environ['SHOP_CURRENCY']} to pay"
        return {"messages": [AIMessage(f"{runtime.context.user_id}, order {order.number} is {order.status}; {price}.")]}
    greeting = config["configurable"].get("greeting", os.environ["SHOP_GREETING"])
    return {"messages": [AIMessage(f"{greeting}. Which order?")]}


def should_continue(state: AgentState) -> str:
    """Whether a tool was asked for."""
    return "continue" if state["messages"][-1].tool_calls else "end"
