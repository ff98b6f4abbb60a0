"""Turns THREADLINE_STORE_EMBEDDINGS into an embedding model; `offline` needs no service and always gives the same."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from langchain_core.embeddings import Embeddings

from threadline_worker.agents.errors import AgentConfigError
from threadline_worker.agents.words import words_of

__all__ = ["OFFLINE", "OFFLINE_DIMS", "HashingEmbeddings", "resolve_embeddings"]

OFFLINE = "offline"
OFFLINE_DIMS = 256
#: What is searched by: the beginning of an item. Models take about 8,000 tokens, and services refuse more.
MAX_CHARS = 8_000
_STEM_CHARS = 5
#: Only these packages are known to take the number of dimensions.
_SHORTENED = ("openai", "azure_openai")


def resolve_embeddings(spec: str, dims: int | None) -> Embeddings:
    """Make the model that `spec` names: `offline`, or `provider:model` for LangChain's init_embeddings.

    Raises AgentConfigError that says what is missing.
    """
    if spec == OFFLINE:
        return HashingEmbeddings(dims or OFFLINE_DIMS)
    from langchain.embeddings import init_embeddings  # noqa: PLC0415 - takes half a second, so only when used

    options: dict[str, Any] = {"dimensions": dims} if dims and spec.partition(":")[0] in _SHORTENED else {}
    try:
        made = init_embeddings(spec, **options)
    except ImportError as error:  # its message names the package to install
        raise AgentConfigError(f"THREADLINE_STORE_EMBEDDINGS={spec} cannot be used yet: {error}.") from error
    except Exception as error:  # a provider's package may raise anything, such as openai.OpenAIError without a key
        reason = " ".join(str(error).split())[:400]
        raise AgentConfigError(
            f"THREADLINE_STORE_EMBEDDINGS={spec} was refused, please correct it: {reason}"
        ) from error
    return made


class HashingEmbeddings(Embeddings):
    """Words and their beginnings, hashed into `dims` numbers: texts are near if they share words. For dev and tests."""

    def __init__(self, dims: int = OFFLINE_DIMS) -> None:
        self.dims = dims

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector of length 1 a text."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """One vector of length 1; for a text without words, that of no word."""
        vector = [0.0] * self.dims
        for word in words_of(text) or [""]:
            for feature, weight in ((word, 1.0), (f"{word[:_STEM_CHARS]}*", 0.5)):
                place, sign = _hashed(feature, self.dims)
                vector[place] += sign * weight
        length = math.sqrt(sum(value * value for value in vector))
        if not length:  # words that cancel each other
            vector[0] = length = 1.0
        return [value / length for value in vector]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """The same; not in a thread, for it is quick."""
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        """The same."""
        return self.embed_query(text)


def _hashed(feature: str, dims: int) -> tuple[int, float]:
    number = int.from_bytes(hashlib.blake2b(feature.encode("utf-8", "replace"), digest_size=8).digest(), "big")
    return (number >> 1) % dims, 1.0 if number & 1 else -1.0
