"""Builds the research agent once per process; runs of different users share it, so it holds nothing of any run."""

from typing import Annotated, Any, NotRequired

import structlog
from deepagents import FilesystemPermission, SubAgent, create_deep_agent
from deepagents.graph import DeepAgentState
from deepagents.middleware.subagents import GENERAL_PURPOSE_SUBAGENT
from langchain.agents.middleware import TodoListMiddleware
from langchain_core.tools import BaseTool
from langgraph.graph.state import CompiledStateGraph

from threadline_worker.agents.models import resolve_model
from threadline_worker.agents.research.approvals import Approvals
from threadline_worker.agents.research.corpus import Corpus
from threadline_worker.agents.research.fetch import Fetcher
from threadline_worker.agents.research.prompts import (
    CRITIC_DESCRIPTION,
    CRITIC_PROMPT,
    RESEARCHER_DESCRIPTION,
    RESEARCHER_PROMPT,
    main_prompt,
)
from threadline_worker.agents.research.search_web import web_search_from
from threadline_worker.agents.research.settings import ResearchSettings
from threadline_worker.agents.research.state import ResearchContext, Source, merge_sources
from threadline_worker.agents.research.tools import research_tools
from threadline_worker.memory.backend import threadline_backend
from threadline_worker.memory.recall import recall_tool
from threadline_worker.memory.routes import Route, routes_from_env

log = structlog.get_logger(__name__)

_READ_ONLY = FilesystemPermission(operations=["write"], paths=["/**"], mode="deny")


class ResearchState(DeepAgentState):
    """The agent's state: messages and files of deepagents, and every source that a tool has returned."""

    sources: Annotated[NotRequired[dict[str, Source]], merge_sources]


def build_research(settings: ResearchSettings) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Build the agent, without checkpointer and store: those come with each run.

    Blocks, for seconds where the corpus must be indexed, so call it in a thread.

    Raises:
        AgentConfigError: the model, the corpus or an extra is not usable; the message says what to do.

    """
    model = resolve_model(settings.model, offline_tokens_per_second=settings.offline_tokens_per_second)
    tools = _tools(settings)
    routes = routes_from_env(settings.memory)
    # Kept from the subagents, and absent where it would only find what `ls` shows.
    recall = [recall_tool(env=settings.memory)] if settings.memory.get("THREADLINE_STORE_EMBEDDINGS") else []
    return create_deep_agent(
        model,
        tools=[*tools, *recall],
        system_prompt=main_prompt(routes),
        middleware=[TodoListMiddleware(), Approvals(settings.approve)],
        subagents=_subagents(tools, routes),
        backend=threadline_backend(routes, env=settings.memory),
        state_schema=ResearchState,
        context_schema=ResearchContext,
        name="research",
    )


def _tools(settings: ResearchSettings) -> list[BaseTool]:
    corpus = Corpus.open(settings.corpus, settings.cache_dir) if settings.corpus is not None else None
    tools = research_tools(
        corpus=corpus,
        web_search=web_search_from(settings),
        fetcher=Fetcher() if settings.may_fetch else None,
    )
    if not tools:
        log.warning("research.no_sources", hint="set THREADLINE_CORPUS, TAVILY_API_KEY or THREADLINE_SEARXNG_URL")
    return tools


def _subagents(tools: list[BaseTool], routes: tuple[Route, ...]) -> list[SubAgent]:
    # Subagents read text that strangers wrote. They may leave notes for their leader, but neither memory, which later
    # jobs trust, nor the report is theirs to write.
    kept = [f"{path}**" for path in dict.fromkeys(["/memories/", *(route.path for route in routes)])]
    leader_only = FilesystemPermission(operations=["write"], paths=[*kept, "/report.md"], mode="deny")
    return [
        # The one that deepagents would add by itself could write everything, and publish unseen.
        {**GENERAL_PURPOSE_SUBAGENT, "tools": tools, "permissions": [leader_only]},
        SubAgent(
            name="researcher",
            description=RESEARCHER_DESCRIPTION,
            system_prompt=RESEARCHER_PROMPT,
            tools=tools,
            permissions=[leader_only],
        ),
        SubAgent(
            name="critic",
            description=CRITIC_DESCRIPTION,
            system_prompt=CRITIC_PROMPT,
            tools=[tool for tool in tools if tool.name == "read_source"],
            permissions=[_READ_ONLY],
        ),
    ]
