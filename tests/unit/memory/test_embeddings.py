"""The embedding model that needs no service, and what is said of others that cannot be had."""

from __future__ import annotations

import math

import pytest

from threadline.errors import ConfigurationError
from threadline_worker.agents.errors import AgentConfigError
from threadline_worker.memory.embeddings import HashingEmbeddings, resolve_embeddings
from threadline_worker.memory.settings import MemorySettings


def near(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dims", [1, 8, 256, 1024])
def test_offline_vectors_have_length_one_and_stay_the_same(dims: int) -> None:
    model = HashingEmbeddings(dims)
    for text in ("", " ", "?!", "a", "Bob likes tea", "连接池满了", "\ud800", "a b c d"):
        vector = model.embed_query(text)
        assert len(vector) == dims
        assert math.isclose(near(vector, vector), 1.0)
        assert vector == HashingEmbeddings(dims).embed_documents([text])[0]


def test_offline_finds_shared_words_also_in_other_forms() -> None:
    model = HashingEmbeddings()
    query = model.embed_query("Which orders were shipped?")
    order = near(query, model.embed_query("Order 17 ships on Monday: the order was shipped"))
    assert order > 2 * abs(near(query, model.embed_query("Bob prefers green tea in the morning")))


@pytest.mark.parametrize(
    ("spec", "says"), [("nosuch:model", "nosuch"), ("cohere:embed", "langchain-cohere"), ("openai:x", "OPENAI_API_KEY")]
)
def test_a_model_that_cannot_be_had_is_told(spec: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(AgentConfigError, match=says):
        resolve_embeddings(spec, None)


@pytest.mark.parametrize(
    "env",
    [
        {"THREADLINE_STORE_EMBEDDINGS": "openai"},
        {"THREADLINE_STORE_EMBEDDINGS": ":x"},
        {"THREADLINE_STORE_EMBEDDING_DIMS": "0"},
        {"THREADLINE_STORE_EMBEDDING_DIMS": "1.5"},
        {"THREADLINE_STORE_TTL_MINUTES": "soon"},
        {"THREADLINE_STORE_TTL_REFRESH": "perhaps"},
        {"THREADLINE_STORE_SWEEP_SECONDS": "-1"},
    ],
)
def test_settings_that_cannot_be_read_are_told(env: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(env))):
        MemorySettings.from_env(env)
