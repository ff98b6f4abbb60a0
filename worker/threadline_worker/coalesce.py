"""Joins the pieces of a message as a model streams them; what a reader puts together from them stays exactly the same.

LangChain's own addition joins, and a reader's addition is from the left: ((a + b) + c) + d. That equals
a + (b + c) + d only for chunks of simple form (`_joinable`); all others are passed on alone.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.utils.utils import LC_AUTO_PREFIX

__all__ = ["Coalescer", "Piece"]

#: Content of one event (contract.md's 4 KiB), counted in characters.
_FULL: Final = 4_096
#: The same while Redis is too slow to take what waits.
_FULL_WHEN_SLOW: Final = 16_384
#: Chunks that wait for their addition: each is some KiB of Python objects.
_MOST_CHUNKS: Final = 64
#: Model calls under way at once whose messages are remembered.
_MOST_CALLS: Final = 512
#: Strings under these keys are not concatenated by LangChain where they are equal.
_NAMES: Final = frozenset({"id", "output_version", "model_provider"})


class Piece(NamedTuple):
    """One `messages` part as it shall be published, and what the part that began it came with."""

    message: BaseMessage
    metadata: Any
    came_with: Any
    #: Characters, about.
    size: int


class _Message:
    """What is known of a message under way.

    `names` are what its chunks have said so far and what all of them must say to be joined; `odd` once one did not.
    """

    def __init__(self, shared_id: str | None, metadata: Any) -> None:
        self.id = shared_id
        self.metadata = metadata
        self.names: dict[tuple[Any, ...], str] = {}
        self.odd = False

    def takes(self, chunk: AIMessageChunk) -> bool:
        """Whether the chunk may be joined with its neighbours. Notes what it says."""
        for place, name in _said(chunk):
            # Another name makes a second block beside the first, for ever: nothing may be joined from here on.
            self.odd = self.odd or self.names.setdefault(place, name) != name
        return not self.odd and _joinable(chunk)


class _Call:
    """A model call: LangGraph gives all its chunks one and the same metadata. Nearly always it makes one message."""

    def __init__(self, metadata: Any) -> None:
        self.metadata = metadata
        self._messages: dict[str | None, _Message] = {}

    @property
    def messages(self) -> Iterable[_Message]:
        """Those under way."""
        return self._messages.values()

    def message(self, chunk_id: str | None) -> tuple[_Message, bool]:
        """The message of a chunk, and whether this is its first.

        A provider's id comes with one chunk only, the others have LangChain's own: they are one message, and the
        pieces of a message share its id (contract.md).
        """
        if known := self._messages.get(chunk_id):
            return known, False
        if len(self._messages) == 1:
            (other,) = self._messages.values()
            if _made_here(other.id) != _made_here(chunk_id):
                self._messages[chunk_id] = other
                return other, False
        made = self._messages[chunk_id] = _Message(chunk_id, self.metadata)
        return made, True


def _made_here(message_id: str | None) -> bool:
    return message_id is None or message_id.startswith(LC_AUTO_PREFIX)


class _Group:
    """Chunks of one message that wait to be joined since `began` (seconds of the caller's clock)."""

    def __init__(self, message: _Message, came_with: Any, began: float) -> None:
        self.message = message
        self.came_with = came_with
        self.began = began
        self.size = 0
        self._chunks: list[AIMessageChunk] = []

    def add(self, chunk: AIMessageChunk, size: int) -> None:
        self._chunks.append(chunk)
        self.size += size
        if len(self._chunks) >= _MOST_CHUNKS:
            self._chunks = [self._joined()]

    def fits(self, chunk: AIMessageChunk) -> bool:
        """Whether text and blocks do not mix: LangChain's addition of the two depends on what is to the left."""
        return isinstance(self._chunks[0].content, str) == isinstance(chunk.content, str)

    def piece(self) -> Piece:
        return Piece(self._joined(), self.message.metadata, self.came_with, self.size)

    def _joined(self) -> AIMessageChunk:
        first, *others = self._chunks
        return first + others if others else first


class Coalescer:
    """Gives pieces back in the order of each message; the first of a message at once.

    `seconds` is the longest that a chunk waits, by the caller, who calls `due`.
    """

    def __init__(self, seconds: float = 0.04) -> None:
        self._seconds = seconds
        self._calls: OrderedDict[tuple[tuple[str, ...], int], _Call] = OrderedDict()
        self._groups: dict[int, _Group] = {}

    def __len__(self) -> int:
        """How many pieces would come if everything were closed now."""
        return len(self._groups)

    @property
    def size(self) -> int:
        """Characters that wait here, about."""
        return sum(group.size for group in self._groups.values())

    def add(
        self, ns: tuple[str, ...], part: Any, came_with: Any, *, now: float, slow: bool = False
    ) -> Iterable[Piece] | None:
        """Take the data of one `messages` part; the pieces that are ready. None: it is no message."""
        if not (isinstance(part, (tuple, list)) and len(part) == 2 and isinstance(part[0], BaseMessage)):  # noqa: PLR2004 - message, metadata
            return None
        given, metadata = part
        if not isinstance(given, AIMessageChunk):
            return [Piece(given, metadata, came_with, 0)]
        message, first = self._call(ns, metadata).message(given.id)
        chunk = _own(given, message.id)
        takes = message.takes(chunk)
        if first:
            return [Piece(chunk, metadata, came_with, 0)]
        if not takes:
            return [*self._close(message), Piece(chunk, metadata, came_with, 0)]
        return self._join(message, chunk, came_with, now, slow=slow)

    def due(self, now: float) -> list[Piece]:
        """The pieces that have waited for long enough."""
        found = [group for group in self._groups.values() if group.began + self._seconds <= now]
        return [piece for group in found for piece in self._close(group.message)]

    def next_due(self) -> float | None:
        """When the next piece is due, on the caller's clock."""
        return min((group.began + self._seconds for group in self._groups.values()), default=None)

    def close(self) -> list[Piece]:
        """Everything, in the order in which it began."""
        return [piece for group in list(self._groups.values()) for piece in self._close(group.message)]

    def _call(self, ns: tuple[str, ...], metadata: Any) -> _Call:
        # The call keeps the metadata alive, so its identity is not given away again.
        key = (ns, id(metadata))
        if (known := self._calls.get(key)) is None:
            known = self._calls[key] = _Call(metadata)
            if len(self._calls) > _MOST_CALLS:
                self._forget_one()
        self._calls.move_to_end(key)
        return known

    def _forget_one(self) -> None:
        """The call that was silent for longest; one with a chunk that waits here would be taken for a new one."""
        for key, call in self._calls.items():
            if not any(id(message) in self._groups for message in call.messages):
                del self._calls[key]
                return

    def _join(self, message: _Message, chunk: AIMessageChunk, came_with: Any, now: float, *, slow: bool) -> list[Piece]:
        ready: list[Piece] = []
        if (group := self._groups.get(id(message))) and not group.fits(chunk):
            ready += self._close(message)
        group = self._groups.setdefault(id(message), _Group(message, came_with, now))
        group.add(chunk, _size(chunk))
        if group.size >= (_FULL_WHEN_SLOW if slow else _FULL):
            ready += self._close(message)
        return ready

    def _close(self, message: _Message) -> Iterator[Piece]:
        if group := self._groups.pop(id(message), None):
            yield group.piece()


def _own(chunk: AIMessageChunk, shared_id: str | None) -> AIMessageChunk:
    """A copy that the graph cannot change any more, as deep as `_joinable` allows chunks to be."""
    return chunk.model_copy(
        update={
            "id": shared_id or chunk.id,
            "content": chunk.content if isinstance(chunk.content, str) else [_flat(block) for block in chunk.content],
            "tool_call_chunks": [_flat(call) for call in chunk.tool_call_chunks],
            "additional_kwargs": dict(chunk.additional_kwargs),
            "response_metadata": dict(chunk.response_metadata),
        }
    )


def _flat(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def _joinable(chunk: AIMessageChunk) -> bool:
    """Whether joining it with its like first and adding the outcome to anything is the same as adding one by one.

    It is where all parts are strings, which are concatenated, in blocks that their index tells apart.
    """
    if type(chunk) is not AIMessageChunk or chunk.chunk_position is not None:
        # With the last chunk LangChain may rewrite what was joined with it.
        return False
    if not chunk.tool_call_chunks and (chunk.tool_calls or chunk.invalid_tool_calls):
        return False
    blocks: list[Any] = [] if isinstance(chunk.content, str) else chunk.content
    return (
        _simple_blocks(blocks)
        and _simple_blocks(list(chunk.tool_call_chunks))
        and _simple(chunk.additional_kwargs)
        and _simple(chunk.response_metadata)
    )


def _simple_blocks(blocks: list[Any]) -> bool:
    """Each block with an index of its own: two of one index are merged only from the second addition on."""
    indices = [block.get("index") if isinstance(block, dict) else None for block in blocks]
    return len(set(map(str, indices))) == len(indices) and all(
        type(index) is int and _simple(block) for index, block in zip(indices, blocks, strict=True)
    )


def _simple(values: Mapping[str, Any]) -> bool:
    return all(
        value is None or isinstance(value, str) or (key == "index" and type(value) is int)
        for key, value in values.items()
    )


def _said(chunk: AIMessageChunk) -> Iterator[tuple[tuple[Any, ...], str]]:
    """The names in a chunk and where they stand."""
    places: Iterable[tuple[Any, Any]] = itertools.chain(
        [("kwargs", chunk.additional_kwargs), ("response", chunk.response_metadata)],
        (("call", call) for call in chunk.tool_call_chunks),
        (("block", block) for block in chunk.content if not isinstance(chunk.content, str)),
    )
    for place, values in places:
        if not isinstance(values, Mapping):
            continue
        for name in _NAMES & values.keys():
            if isinstance(values[name], str) and values[name]:
                yield (place, values.get("index"), name), values[name]


def _size(chunk: AIMessageChunk) -> int:
    texts: list[Any] = [chunk.content] if isinstance(chunk.content, str) else list(chunk.content)
    texts += [*chunk.tool_call_chunks, chunk.additional_kwargs, chunk.response_metadata]
    return 16 + sum(
        len(text) if isinstance(text, str) else sum(len(value) for value in text.values() if isinstance(value, str))
        for text in texts
    )
