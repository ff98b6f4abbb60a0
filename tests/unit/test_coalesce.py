"""What a reader puts together from a message's pieces is what it would have put together from the model's chunks."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk, ToolMessage
from langchain_core.messages.tool import tool_call_chunk

from threadline_worker import coalesce
from threadline_worker.coalesce import Coalescer, Piece

words = st.text('ab é{}"', max_size=6)
names = st.sampled_from([None, None, "", "n1", "n1", "n2"])
index = st.sampled_from([0, 0, 1, 2])
blocks = st.one_of(
    st.builds(lambda i, t: {"type": "text", "text": t, "index": i}, index, words),
    st.builds(lambda i, t: {"type": "thinking", "thinking": t, "index": i}, index, words),
    st.builds(lambda i, t, s: {"type": "thinking", "signature": t, "index": i, "id": s}, index, words, names),
    st.builds(lambda i, t: {"type": "non_standard", "value": {"x": t}, "index": i}, index, words),
    st.builds(lambda t: {"type": "text", "text": t}, words),
    st.builds(lambda i, t: {"type": "text", "annotations": [{"t": t}], "index": i}, index, words),
    words,
)
calls = st.builds(
    lambda n, a, i, x: tool_call_chunk(name=n, args=a, id=i, index=x),
    st.sampled_from([None, "", "search"]),
    words,
    names,
    st.sampled_from([0, 0, 1, None]),
)
extras = st.dictionaries(
    st.sampled_from(["id", "model_provider", "reasoning_content", "finish_reason"]),
    st.none() | names | words,
    max_size=2,
)
numbers = st.integers(0, 9)
usage = st.builds(
    lambda i, o: {
        "input_tokens": i,
        "output_tokens": o,
        "total_tokens": i + o,
        "output_token_details": {"reasoning": o},
    },
    numbers,
    numbers,
)
chunks = st.builds(
    lambda content, tools, kwargs, response, used: AIMessageChunk(
        content,
        tool_call_chunks=tools,
        additional_kwargs=kwargs,
        response_metadata=response,
        usage_metadata=used,
        id="m",
    ),
    words | words | words | st.lists(blocks, max_size=2),
    st.just([]) | st.just([]) | st.lists(calls, max_size=2),
    st.just({}) | extras,
    st.just({}) | extras,
    st.none() | usage,
)
#: What the caller does between two chunks.
moves = st.sampled_from(["", "", "", "", "wait", "slow", "close"])


def joined(messages: list[Any]) -> dict[str, Any] | str:
    """The reader's sum from the left, or LangChain's refusal."""
    try:
        return reduce(add, messages).model_dump()
    except (TypeError, ValueError) as error:
        return type(error).__name__


def pieces_of(streams: list[list[AIMessageChunk]], order: list[int], hand: list[str]) -> list[list[AIMessageChunk]]:
    """Feed several messages at once; the pieces of each."""
    coalescer, now, slow = Coalescer(), 0.0, False
    metadata: list[dict[str, Any]] = [{} for _ in streams]
    left = [list(stream) for stream in streams]
    found: list[Piece] = []
    for which, move in zip(order, hand, strict=True):
        now += 0.05 if move == "wait" else 0.001
        slow = move == "slow"
        found += coalescer.due(now) if move != "close" else coalescer.close()
        if left[which]:
            ready = coalescer.add((), (left[which].pop(0), metadata[which]), which, now=now, slow=slow)
            assert ready is not None
            found += ready
    for which, rest in enumerate(left):
        for chunk in rest:
            found += coalescer.add((), (chunk, metadata[which]), which, now=now) or []
    found += coalescer.close()
    assert len(coalescer) == 0
    return [[piece.message for piece in found if piece.came_with == which] for which in range(len(streams))]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_sum_of_the_pieces_is_the_sum_of_the_chunks(data: st.DataObject) -> None:
    streams = data.draw(st.lists(st.lists(chunks, min_size=1, max_size=8), min_size=1, max_size=3))
    steps = sum(map(len, streams))
    order = data.draw(st.lists(st.integers(0, len(streams) - 1), min_size=steps, max_size=steps))
    hand = data.draw(st.lists(moves, min_size=steps, max_size=steps))
    for stream, pieces in zip(streams, pieces_of(streams, order, hand), strict=True):
        assert joined(pieces) == joined(stream)


def call(args: str, name: str | None = None, index: int | None = 0) -> Any:
    return {"tool_call_chunks": [tool_call_chunk(name=None, args=args, id=name, index=index)]}


def text(*texts: str) -> Any:
    return {"content": [{"type": "text", "text": text, "index": 0} for text in texts]}


@pytest.mark.parametrize(
    "parts",
    [
        # Two calls under one index: what has no name goes to the first.
        [call("a", "n1"), call("b", "n2"), call("c")],
        [call("a", "n1"), call("b"), call("c", "n2"), call("d"), call("e")],
        # Two blocks under one index are one only from the second addition on.
        [text("a"), text("b", "c"), text("d")],
        [{"content": "a"}, {"content": ""}, text("b"), {"content": "c"}, {"content": "d"}],
        [{"content": []}, {"content": "a"}, {"content": "b"}, text("c")],
        [{"response_metadata": {"id": name}} for name in ("x", "y", "y", "x")],
        [{"additional_kwargs": {"n": value}} for value in (1, 2, True, 3)],
        [{**call('{"a": 1}', "n1"), "chunk_position": position} for position in (None, None, "last", None)],
    ],
)
def test_forms_whose_addition_depends_on_what_is_to_the_left(parts: list[Any]) -> None:
    stream = [AIMessageChunk(**{"content": "", "id": "m", **part}) for part in parts]
    [pieces] = pieces_of([stream], [0] * len(stream), [""] * len(stream))
    assert joined(pieces) == joined(stream)


def words_of(
    coalescer: Coalescer, metadata: Any, texts: list[str], *, now: float = 0.0, slow: bool = False
) -> list[str]:
    found: list[str] = []
    for text in texts:
        ready = coalescer.add((), (AIMessageChunk(text, id="m"), metadata), None, now=now, slow=slow)
        found += [str(piece.message.content) for piece in ready or []]
    return found


def test_the_first_piece_goes_at_once_and_the_others_after_40_ms() -> None:
    coalescer, metadata = Coalescer(), {"langgraph_node": "model"}
    assert words_of(coalescer, metadata, ["a", "b", "c"]) == ["a"]
    assert coalescer.next_due() == pytest.approx(0.04)
    assert coalescer.due(0.039) == []
    assert [piece.message.content for piece in coalescer.due(0.04)] == ["bc"]
    assert coalescer.next_due() is None


def test_or_at_4_kib_and_while_redis_is_slow_at_16() -> None:
    def sizes(*, slow: bool) -> list[int]:
        coalescer = Coalescer()
        return [len(text) for text in words_of(coalescer, {}, ["x" * 84] * 400, slow=slow)]

    assert max(sizes(slow=False)) <= 4096 + 84
    assert len(sizes(slow=False)) == 10
    assert 8_192 < max(sizes(slow=True)) <= 16_384 + 84
    assert len(sizes(slow=True)) == 3


def test_what_the_graph_does_to_a_chunk_afterwards_changes_nothing() -> None:
    coalescer, metadata = Coalescer(), {}
    block = {"type": "text", "text": "b", "index": 0}
    later = AIMessageChunk([block], id="m")
    words_of(coalescer, metadata, ["a"])
    coalescer.add((), (later, metadata), None, now=0.0)
    block["text"] = "changed"
    later.content = []
    assert [piece.message.content for piece in coalescer.close()] == [[{"type": "text", "text": "b", "index": 0}]]


def test_the_pieces_of_a_message_share_its_id() -> None:
    """Anthropic names a message in the first chunk only; LangChain gives the others an id of its own."""
    coalescer, metadata = Coalescer(), {}
    found: list[Piece] = []
    for text, name in [("a", "msg_1"), ("b", "lc_run--7"), ("c", "lc_run--7")]:
        found += coalescer.add((), (AIMessageChunk(text, id=name), metadata), None, now=0.0) or []
    found += coalescer.close()
    assert [(piece.message.content, piece.message.id) for piece in found] == [("a", "msg_1"), ("bc", "msg_1")]


def test_two_messages_of_one_call_stay_two() -> None:
    coalescer, metadata = Coalescer(), {}
    found: list[Piece] = []
    for name in ["lc_run--1", "lc_run--2", "lc_run--1", "lc_run--2"]:
        found += coalescer.add((), (AIMessageChunk(name[-1], id=name), metadata), None, now=0.0) or []
    found += coalescer.close()
    assert [piece.message.content for piece in found] == ["1", "2", "1", "2"]


def test_whole_messages_pass() -> None:
    coalescer = Coalescer()
    message = ToolMessage("found", tool_call_id="c", id="t")
    assert [piece.message for piece in coalescer.add((), (message, {}), None, now=0.0) or []] == [message]
    assert coalescer.add((), {"event": "message-start"}, None, now=0.0) is None


def test_calls_are_forgotten_although_one_waits_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalesce, "_MOST_CALLS", 10)
    coalescer, metadata = Coalescer(), [{} for _ in range(1_000)]
    assert words_of(coalescer, metadata[0], ["a", "b"]) == ["a"]
    for other in metadata[1:]:
        assert words_of(coalescer, other, ["c"]) == ["c"]
    assert len(coalescer._calls) <= 11
    assert words_of(coalescer, metadata[0], ["d"]) == []
    assert [piece.message.content for piece in coalescer.close()] == ["bd"]
