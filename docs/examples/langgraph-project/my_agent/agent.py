"""The graph, and a function that makes one for each run."""

import contextlib
from collections.abc import AsyncIterator

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from langgraph_sdk.runtime import ServerRuntime

from my_agent.utils.nodes import call_model, should_continue
from my_agent.utils.state import AgentState, ContextSchema
from my_agent.utils.tools import look_up

workflow = StateGraph(AgentState, context_schema=ContextSchema)
workflow.add_node("agent", call_model)
workflow.add_node("action", ToolNode([look_up]))
workflow.add_edge(START, "agent")
workflow.add_conditional_edges("agent", should_continue, {"continue": "action", "end": END})
workflow.add_edge("action", "agent")

graph = workflow.compile()


@contextlib.asynccontextmanager
async def make_graph(
    config: RunnableConfig, runtime: ServerRuntime[ContextSchema]
) -> AsyncIterator[CompiledStateGraph]:
    """Open what a run needs and nobody else (connections, the customer's own tools), and close it behind the run."""
    user = runtime.user.identity if runtime.user else config["configurable"].get("user_id", "nobody")
    yield workflow.compile(name=f"shop for {user}")
