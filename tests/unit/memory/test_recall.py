"""The tool `recall`: the nearest of what this user and everybody may read, with an index and without."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langgraph.store.memory import InMemoryStore

from threadline_worker.memory import recall_tool, user_namespace
from threadline_worker.memory.embeddings import HashingEmbeddings

sys.path.append(str(Path(__file__).parents[3] / "docs" / "examples"))
from scripted import Scripted, call

ROUTES = "/memories/=user:rw,/knowledge/=shared:r,/project/=disk:/tmp:r"


def file(text: str) -> dict[str, Any]:
    return {"content": text, "encoding": "utf-8"}


@pytest.mark.parametrize("indexed", [True, False])
async def test_recall_finds_what_is_near_and_nothing_of_others(indexed: bool) -> None:
    index: Any = {"dims": 256, "embed": HashingEmbeddings(), "fields": ["content"]}
    store = InMemoryStore(index=index if indexed else None)
    ann, bob = (user_namespace("memories", user_id=user) for user in ("ann", "bob"))
    store.put(ann, "/tea.md", file("Ann likes green tea in the morning"))
    store.put(ann, "/hill.md", file("A hill by a lake"))
    store.put(bob, "/tea.md", file("Bob likes green tea in the morning"))
    store.put(("knowledge", "shared"), "/shop.md", file("The shop sells green tea"))
    store.put(("knowledge", "shared"), "/x.bin", {"content": "AAAA", "encoding": "base64"})

    def script(messages: Any) -> AIMessage:
        if messages[-1].type == "human":
            return call("recall", query="green tea in the morning", limit=5)
        return AIMessage("done")

    agent = create_agent(Scripted(script=script), tools=[recall_tool(ROUTES)], store=store)
    values = await agent.ainvoke({"messages": [("user", "?")]}, {"configurable": {"user_id": "ann"}})
    found = json.loads(values["messages"][-2].text)
    paths = [entry["path"] for entry in found]
    assert paths[:2] == ["/memories/tea.md", "/knowledge/shop.md"]
    assert ("/memories/hill.md" in paths) is indexed  # without an index, a shared word is asked for
    assert found[0]["text"].startswith("Ann")
    nobody = await agent.ainvoke({"messages": [("user", "?")]}, {"configurable": {"user_id": "nobody"}})
    assert "Bob" not in nobody["messages"][-2].text
