"""Spans of what runs in a graph: super-steps, below them model and tool calls, below a tool the subagent that it runs.

What LangChain calls back says which run each call belongs to; the current context does not: callbacks run in contexts
of their own. No contents: names, numbers and types only.

A step of the main graph is sent with all that is below it when it ends, its own span first. So what a killed worker
leaves is whole: each span's parent is there, and a step that was not committed is told by the worker that repeats it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langgraph.errors import GraphBubbleUp

from threadline_worker.telemetry.trace_names import Attributes, model_asked, model_said, short, tool_called
from threadline_worker.telemetry.traces import Export, Span

__all__ = ["TraceSteps"]

_NS_SEP: Final = "|"
_STEP_TAG: Final = "graph:step:"
#: Spans of one step that wait for its end; what comes on top is sent as it ends.
_MOST_HELD: Final = 2_000


@dataclass(eq=False)
class _Open:
    """A span that has begun."""

    name: str
    span_id: int
    parent: _Open | None
    kind: str = "internal"
    start: int = field(default_factory=time.time_ns)
    attributes: Attributes = field(default_factory=dict)
    over: bool = False

    @property
    def top(self) -> _Open:
        """The step of the main graph that it is in, or itself."""
        return self if self.parent is None else self.parent.top


@dataclass(eq=False)
class _Step(_Open):
    """A super-step of a graph; the checkpoint namespace is the graph's."""

    namespace: str = ""
    number: int = 0
    #: The type of what a node has raised, until it is tried again and the step is durable.
    error: str | None = None
    held: list[Span] = field(default_factory=list)


class TraceSteps(BaseCallbackHandler):
    """Of one claim. `run_span` gives the id of the span that all is below."""

    run_inline = True
    ignore_retriever = True
    ignore_custom_event = True

    def __init__(self, export: Export, trace_id: int, run_span: Callable[[], int]) -> None:
        self._export = export
        self._trace_id = trace_id
        self._run_span = run_span
        #: LangChain's run → the nearest span around what runs in it.
        self._spans: dict[UUID, _Open | None] = {}
        #: A graph's run → its step under way.
        self._steps: dict[UUID, _Step] = {}
        #: Runs of nodes, whose errors are their step's.
        self._nodes: set[UUID] = set()
        self._last_commit = time.time_ns()
        # Tools that are no coroutines run in threads.
        self._lock = threading.RLock()

    # Graphs and their nodes:

    def on_chain_start(
        self,
        serialized: dict[str, Any],  # noqa: ARG002 - LangChain's signature
        inputs: dict[str, Any],  # noqa: ARG002 - the same
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **_more: Any,
    ) -> None:
        """A node belongs to a step of its graph; any other runnable to what it runs in."""
        number = next((tag.removeprefix(_STEP_TAG) for tag in tags or () if tag.startswith(_STEP_TAG)), "")
        with self._lock:
            if parent_run_id is not None and number.isdigit():
                self._spans[run_id] = self._step_of(parent_run_id, int(number), metadata or {})
                self._nodes.add(run_id)
            else:
                self._spans[run_id] = self._around(parent_run_id)

    def on_chain_end(self, outputs: dict[str, Any], *, run_id: UUID, **_more: Any) -> None:  # noqa: ARG002
        """A graph that keeps no checkpoints ends its last step here."""
        self._chain_over(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_more: Any) -> None:
        """A node's error is its step's; what runs within a node may be caught there."""
        with self._lock:
            step = self._spans.get(run_id) if run_id in self._nodes else None
            if isinstance(step, _Step):
                step.error = _fault(error)
            self._chain_over(run_id)

    def committed(self, namespace: str, step: int) -> None:
        """The step's checkpoint is durable. One of the main graph's in which nothing ran has a span, too."""
        with self._lock:
            found = [open_ for open_ in self._steps.values() if (open_.namespace, open_.number) == (namespace, step)]
            if not found and namespace == "" and step >= 0:
                found = [self._begin_step(None, step, "", start=self._last_commit)]
            for open_ in found:
                open_.attributes["threadline.step.committed"] = True
                open_.error = None
                self._end_step(open_)
            if namespace == "":
                self._last_commit = time.time_ns()

    def close(self) -> None:
        """The claim is over: what is still open ends with it."""
        with self._lock:
            for run_id, open_ in list(self._spans.items()):
                if open_ is not None and not isinstance(open_, _Step) and not open_.over:
                    self._end(run_id, None)
            # Subagents first: they are below the main graph's step, which sends what it holds.
            for step in sorted(self._steps.values(), key=lambda open_: -len(open_.namespace)):
                self._end_step(step)
            self._spans.clear()

    # Calls:

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],  # noqa: ARG002 - contents are nobody's business here
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """A model is asked."""
        self._model(serialized, run_id, parent_run_id, metadata or {}, more)

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],  # noqa: ARG002 - the same
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """A model of completions is asked."""
        self._model(serialized, run_id, parent_run_id, metadata or {}, more)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_more: Any) -> None:
        """It has answered: what it says of itself and of its tokens."""
        with self._lock:
            open_ = self._spans.get(run_id)
            if open_ is not None:
                open_.attributes |= model_said(response)
            self._end(run_id, None)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_more: Any) -> None:
        """It has not."""
        self._end(run_id, error)

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,  # noqa: ARG002 - the same
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **more: Any,
    ) -> None:
        """A tool is called."""
        self._begin(run_id, parent_run_id, "internal", *tool_called(serialized, more))

    def on_tool_end(self, output: Any, *, run_id: UUID, **_more: Any) -> None:
        """It is done; a tool that tells the model of its error says so in its message's status."""
        with self._lock:
            open_ = self._spans.get(run_id)
            if open_ is not None and getattr(output, "status", None) == "error":
                open_.attributes["error.type"] = "tool_error"
            self._end(run_id, None)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_more: Any) -> None:
        """It has failed, or asks a person, which is no failure."""
        self._end(run_id, error)

    # How it is kept:

    def _model(
        self,
        serialized: Mapping[str, Any] | None,
        run_id: UUID,
        parent_run_id: UUID | None,
        metadata: Mapping[str, Any],
        more: Mapping[str, Any],
    ) -> None:
        self._begin(run_id, parent_run_id, "client", *model_asked(serialized, metadata, more))

    def _begin(self, run_id: UUID, parent_run_id: UUID | None, kind: str, name: str, attributes: Attributes) -> None:
        with self._lock:
            around = self._around(parent_run_id)
            self._spans[run_id] = _Open(name, self._export.new_id(), around, kind, attributes=attributes)

    def _end(self, run_id: UUID, error: BaseException | None) -> None:
        with self._lock:
            open_ = self._spans.pop(run_id, None)
            if open_ is not None and not open_.over:
                self._send(open_, _fault(error))

    def _around(self, run_id: UUID | None) -> _Open | None:
        """The nearest span; None: the run's own."""
        return None if run_id is None else self._spans.get(run_id)

    def _step_of(self, graph: UUID, number: int, metadata: Mapping[str, Any]) -> _Step:
        step = self._steps.get(graph)
        if step is None or step.number != number:
            if step is not None:
                self._end_step(step)
            at = str(metadata.get("langgraph_checkpoint_ns", ""))
            step = self._begin_step(self._around(graph), number, at.rpartition(_NS_SEP)[0])
            self._steps[graph] = step
        node, agent = metadata.get("langgraph_node"), metadata.get("lc_agent_name")
        nodes = step.attributes.get("threadline.nodes", ())
        if isinstance(node, str) and isinstance(nodes, Sequence) and node not in nodes:
            step.attributes["threadline.nodes"] = [*nodes, short(node)]
        if isinstance(agent, str):
            step.attributes["gen_ai.agent.name"] = short(agent)
        return step

    def _begin_step(self, parent: _Open | None, number: int, namespace: str, start: int | None = None) -> _Step:
        return _Step(
            f"step {number}",
            self._export.new_id(),
            parent,
            start=time.time_ns() if start is None else start,
            attributes={"threadline.step": number, "threadline.step.committed": False},
            namespace=namespace,
            number=number,
        )

    def _end_step(self, step: _Step) -> None:
        self._steps = {graph: open_ for graph, open_ in self._steps.items() if open_ is not step}
        if not step.over:
            self._send(step, step.error)

    def _chain_over(self, run_id: UUID) -> None:
        with self._lock:
            if (step := self._steps.get(run_id)) is not None:
                self._end_step(step)
            self._spans.pop(run_id, None)
            self._nodes.discard(run_id)

    def _send(self, open_: _Open, error: str | None) -> None:
        open_.over = True
        parent = self._run_span() if open_.parent is None else open_.parent.span_id
        span = Span(
            open_.name,
            self._trace_id,
            open_.span_id,
            parent,
            open_.start,
            time.time_ns(),
            open_.attributes,
            error=error,
            kind=open_.kind,
        )
        top = open_.top
        if isinstance(top, _Step) and not top.over and len(top.held) < _MOST_HELD:
            top.held.append(span)
            return
        self._export.send([span, *(open_.held if isinstance(open_, _Step) else ())])
        if isinstance(open_, _Step):
            open_.held = []


def _fault(error: BaseException | None) -> str | None:
    """An error's type; what a graph raises to ask a person or to stop is none."""
    return None if error is None or isinstance(error, GraphBubbleUp) else type(error).__name__
