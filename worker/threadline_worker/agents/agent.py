"""A graph that is ready to run, and what its own schemas say of inputs, contexts and state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from langchain_core.messages import HumanMessage

from threadline.errors import InvalidJob
from threadline_worker.agents.context import context_of
from threadline_worker.agents.factory import Graph
from threadline_worker.agents.fingerprint import Structure, fingerprint, structure
from threadline_worker.agents.input import InputSchema
from threadline_worker.strict_types import StrictSerializer, TypeName, types_of

__all__ = ["Agent"]


@dataclass(frozen=True)
class Agent:
    """`result` makes the job's JSON result of the graph's final values; `types` are those that the setting declares."""

    name: str
    graph: Graph
    result: Callable[[Any], Any]
    types: frozenset[TypeName] = frozenset()

    @property
    def text_input(self) -> bool | None:
        """Whether a str input can become a human message; None if the graph does not say."""
        channels = getattr(self.graph, "channels", None)
        return "messages" in channels if channels else None

    @cached_property
    def serde(self) -> StrictSerializer:
        """What its checkpoints are written and read with."""
        return StrictSerializer(self.types | types_of(self.graph))

    @cached_property
    def structure(self) -> Structure:
        """What of the graph matters to a thread that goes on in it."""
        return structure(self.graph)

    @cached_property
    def fingerprint(self) -> str:
        """The structure as one word."""
        return fingerprint(self.structure)

    def context(self, given: Mapping[str, Any] | None, ours: Mapping[str, Any]) -> Any:
        """The run's context. Raises InvalidJob that names the field."""
        return context_of(getattr(self.graph, "context_schema", None), given, ours)

    def input(self, given: Any, job_id: str, *, new_thread: bool) -> Any:
        """The graph's input of a job's. Raises InvalidJob that names the field."""
        if isinstance(given, str):
            if self.text_input is False:
                raise InvalidJob(f"agent {self.name} has no `messages`: give its input as a dict, not as text")
            # A stable id: should the input be applied twice, it is one message.
            given = {"messages": [HumanMessage(given, id=f"{job_id}-input")]}
        if isinstance(given, dict):
            self._input_schema.check(given, new_thread=new_thread)
        return given

    def input_schema(self) -> dict[str, Any]:
        """The JSON schema of the graph's input."""
        return self._input_schema.json()

    @cached_property
    def _input_schema(self) -> InputSchema:
        return InputSchema(self.graph)
