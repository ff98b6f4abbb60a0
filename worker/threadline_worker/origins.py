"""Says of each part of a run's stream which agent, node, task and super-step it comes from, as far as LangGraph tells.

LangGraph says it in several places: `tasks` parts name the tasks of a step and their agent, the metadata of a node's
run (a callback) its super-step, the metadata of `messages` all of it. `updates` do not say whose they are: the result
of the same task comes right behind them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from langchain_core.callbacks import BaseCallbackHandler

__all__ = ["Loaded", "Origin", "Origins", "Part", "TaskSteps"]

_NS_SEP: Final = "|"
#: Writes that are no result: the task runs again.
_NO_RESULT: Final = frozenset({"__error__", "__error_source_node__", "__interrupt__", "__resume__"})


class Origin(NamedTuple):
    """Where an event comes from; None where that is not known or makes no sense."""

    agent: str | None = None
    node: str | None = None
    task: str | None = None
    step: int | None = None


class Part(NamedTuple):
    """A part of the stream and its origin."""

    kind: str
    ns: tuple[str, ...]
    data: Any
    origin: Origin


class Loaded(NamedTuple):
    """A checkpoint that a graph goes on from, and the tasks of its next step whose results are saved already."""

    namespace: str
    step: int
    finished: frozenset[str]

    @classmethod
    def of(cls, namespace: str, step: int, pending_writes: list[Any] | None) -> Loaded:
        """From a saver's checkpoint tuple."""
        finished = {str(task) for task, channel, *_value in pending_writes or () if channel not in _NO_RESULT}
        return cls(namespace, step, frozenset(finished))


class TaskSteps(BaseCallbackHandler):
    """Hears the super-step of each task when its node begins, and the name of an agent that begins within a task."""

    run_inline = True
    ignore_llm = True
    ignore_chat_model = True
    ignore_agent = True
    ignore_retriever = True
    ignore_custom_event = True

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        #: Namespace → the name that was heard there last.
        self.names: dict[str, str] = {}

    def on_chain_start(
        self,
        serialized: dict[str, Any],  # noqa: ARG002 - LangChain's signature
        inputs: dict[str, Any],  # noqa: ARG002 - the same
        *,
        metadata: dict[str, Any] | None = None,
        **_more: Any,
    ) -> None:
        """Any runnable within a node has the node's metadata; a graph within it has a name of its own."""
        found = metadata or {}
        task, step, name = _task_of(found), found.get("langgraph_step"), found.get("lc_agent_name")
        if task is not None and isinstance(step, int):
            self.known[task] = step
        if task is not None and isinstance(name, str):
            self.names[found["langgraph_checkpoint_ns"]] = name


class _Scope:
    """One graph of the run: the main one or a subgraph."""

    def __init__(self) -> None:
        #: The step that the graph goes on from, and the last one that is known to be durable.
        self.loaded: int | None = None
        self.head: int | None = None
        #: The agent's name in LangChain's metadata.
        self.name: str | None = None
        self.agent: str | None = None
        self.finished: frozenset[str] = frozenset()
        #: Task → node, in the order of their start.
        self.running: dict[str, str] = {}
        #: The same for tasks whose saved results are told again instead of running.
        self.told_again: dict[str, str] = {}
        self.started: str | None = None
        self.calls: dict[str, str] = {}


class Origins:
    """Of one run of the agent `agent`. `take` gives parts back in their order, now and then one call later.

    `anew`: the main graph begins with an input, instead of going on from its checkpoint.
    """

    def __init__(self, agent: str, *, anew: bool = True) -> None:
        self._agent = agent
        self.anew = anew
        self._scopes: dict[tuple[str, ...], _Scope] = {}
        self._held: Part | None = None
        self.steps = TaskSteps()

    def loaded(self, loaded: Loaded) -> None:
        """A graph of the run goes on from this checkpoint."""
        scope = self._scope(_split(loaded.namespace))
        scope.loaded = scope.head = loaded.step
        scope.finished = loaded.finished

    def committed(self, namespace: str, step: int) -> None:
        """A checkpoint of the run is durable."""
        self._scope(_split(namespace)).head = step

    def take(self, kind: str, ns: tuple[str, ...], data: Any) -> Iterator[Part]:
        """The part with its origin, behind what was held back."""
        held, self._held = self._held, None
        if held is not None:
            yield self._settled(held, kind, ns, data)
        part = Part(kind, ns, data, self._origin(kind, ns, data))
        if kind == "updates" and part.origin.task is None:
            self._held = part
        else:
            yield part

    def rest(self) -> Iterator[Part]:
        """What was held back and is not explained by a part behind it."""
        held, self._held = self._held, None
        if held is not None:
            yield held

    @property
    def holds(self) -> bool:
        """Whether a part is held back."""
        return self._held is not None

    def _settled(self, held: Part, kind: str, ns: tuple[str, ...], data: Any) -> Part:
        """An update of several tasks' node is that task's whose result follows."""
        if kind != "tasks" or ns != held.ns or not _is_result(data):
            return held
        if held.origin.node not in {None, data.get("name")}:
            return held
        return held._replace(origin=self._of_task(ns, str(data.get("id")), str(data.get("name"))))

    def _origin(  # noqa: PLR0911 - one flat table of modes reads best
        self, kind: str, ns: tuple[str, ...], data: Any
    ) -> Origin:
        match kind, data:
            case "tasks", Mapping():
                return self._task(ns, data)
            case "debug", {"payload": Mapping() as payload, "step": step, **_rest}:
                found = self._named(ns, payload)
                return found._replace(step=step if isinstance(step, int) else found.step)
            case "updates", Mapping():
                return self._update(ns, data)
            case "messages", (_, Mapping() as metadata):
                return self._message(ns, metadata)
            case "tools", {"tool_call_id": call, **_rest}:
                return self._among(ns, self._scope(ns).calls.get(str(call)))
            case "checkpoints", {"metadata": {"step": int(step), **_more}, **_rest}:
                return Origin(self._agent_of(ns), step=step)
            case "values" | "checkpoints", _:
                return Origin(self._agent_of(ns), step=self._step(ns))
            case _:
                return self._among(ns, None)

    def _task(self, ns: tuple[str, ...], data: Mapping[str, Any]) -> Origin:
        scope, task, node = self._scope(ns), str(data.get("id")), str(data.get("name"))
        if _is_result(data):
            found = self._of_task(ns, task, node)
            scope.running.pop(task, None)
            self._forget(ns, node, task)
            return found
        self._name(ns, (data.get("metadata") or {}).get("lc_agent_name"))
        scope.started = task
        if task in scope.finished:
            # It does not run, so nobody will say its step.
            self.steps.known.setdefault(task, -1 if scope.head is None else scope.head + 1)
            scope.told_again[task] = node
        else:
            scope.running[task] = node
        for call in _calls(data.get("input")):
            scope.calls[call] = task
        return self._of_task(ns, task, node)

    def _named(self, ns: tuple[str, ...], payload: Mapping[str, Any]) -> Origin:
        if isinstance(payload.get("id"), str) and isinstance(payload.get("name"), str):
            return self._of_task(ns, payload["id"], payload["name"])
        return Origin(self._agent_of(ns), step=self._step(ns))

    def _update(self, ns: tuple[str, ...], data: Mapping[str, Any]) -> Origin:
        scope, nodes = self._scope(ns), [key for key in data if not str(key).startswith("__")]
        node = str(nodes[0]) if len(nodes) == 1 else None
        again = isinstance(data.get("__metadata__"), Mapping) and "cached" in data["__metadata__"]
        among = scope.told_again if again else scope.running
        tasks = [task for task, name in among.items() if node in {None, name}]
        if again and tasks:
            # They are told in the order of their tasks.
            del scope.told_again[tasks[0]]
        elif len(tasks) != 1:
            return Origin(self._agent_of(ns), node, None, self._step(ns))
        return self._of_task(ns, tasks[0], among.get(tasks[0], node))

    def _message(self, ns: tuple[str, ...], metadata: Mapping[str, Any]) -> Origin:
        self._name(ns, metadata.get("lc_agent_name"))
        node, step = metadata.get("langgraph_node"), metadata.get("langgraph_step")
        return Origin(
            self._agent_of(ns),
            node if isinstance(node, str) else None,
            _task_of(metadata),
            step if isinstance(step, int) else self._step(ns),
        )

    def _among(self, ns: tuple[str, ...], task: str | None) -> Origin:
        """The task if it is known, or the only one that runs; else what all running ones have in common."""
        running = self._scope(ns).running
        if task is None and len(running) == 1:
            task = next(iter(running))
        if task is not None:
            return self._of_task(ns, task, running.get(task))
        nodes = set(running.values())
        return Origin(self._agent_of(ns), nodes.pop() if len(nodes) == 1 else None, None, self._step(ns))

    def _of_task(self, ns: tuple[str, ...], task: str, node: str | None) -> Origin:
        return Origin(self._agent_of(ns), node, task, self.steps.known.get(task, self._step(ns)))

    def _step(self, ns: tuple[str, ...]) -> int | None:
        """The step of the tasks that were started last."""
        scope = self._scope(ns)
        if scope.started is None:
            return self._first_step(ns, scope.loaded)
        return self.steps.known.get(scope.started, None if scope.head is None else scope.head + 1)

    def _first_step(self, ns: tuple[str, ...], loaded: int | None) -> int:
        """Before the first task: where the graph goes on, or the step behind its input, which is one itself."""
        if ns or not self.anew:
            return 0 if loaded is None else loaded
        return 0 if loaded is None else loaded + 2

    def _scope(self, ns: tuple[str, ...]) -> _Scope:
        return self._scopes.setdefault(ns, _Scope())

    def _name(self, ns: tuple[str, ...], name: Any) -> None:
        """A graph within an agent has the agent's name; a subagent has one of its own."""
        scope = self._scope(ns)
        if not isinstance(name, str) or scope.name is not None:
            return
        scope.name = name
        if self._is_another(ns, name):
            scope.agent = name

    def _is_another(self, ns: tuple[str, ...], name: str) -> bool:
        return bool(ns) and name not in {
            found.name for at, found in self._scopes.items() if ns[: len(at)] == at and at != ns
        }

    def _agent_of(self, ns: tuple[str, ...]) -> str:
        for length in range(len(ns), 0, -1):
            scope = self._scope(ns[:length])
            if scope.agent is not None:
                return scope.agent
            # Before its first task a subagent's name was heard only.
            heard = self.steps.names.get(_NS_SEP.join(ns[:length])) if scope.name is None else None
            if heard is not None and self._is_another(ns[:length], heard):
                return heard
        return self._agent

    def _forget(self, ns: tuple[str, ...], node: str, task: str) -> None:
        """What ran within a task that has ended."""
        inner = (*ns, f"{node}:{task}")
        for known in [at for at in self._scopes if at[: len(inner)] == inner]:
            del self._scopes[known]
        scope = self._scope(ns)
        scope.calls = {call: by for call, by in scope.calls.items() if by != task}
        self.steps.names.pop(_NS_SEP.join(inner), None)
        if len(self.steps.known) > _MOST_STEPS:
            self.steps.known = dict(list(self.steps.known.items())[_MOST_STEPS // 2 :])


#: Tasks whose steps are remembered.
_MOST_STEPS: Final = 10_000


def _split(namespace: str) -> tuple[str, ...]:
    return tuple(namespace.split(_NS_SEP)) if namespace else ()


def _task_of(metadata: Mapping[str, Any]) -> str | None:
    """`…|node:task id` is where a node runs."""
    namespace = metadata.get("langgraph_checkpoint_ns")
    _, colon, task = namespace.rpartition(":") if isinstance(namespace, str) else ("", "", "")
    return task if colon else None


def _is_result(data: Any) -> bool:
    return isinstance(data, Mapping) and "result" in data


def _calls(given: Any) -> Iterator[str]:
    """The tool calls that a task of a tool node was started with."""
    listed = [given["tool_call"]] if isinstance(given, Mapping) and "tool_call" in given else given
    for call in listed if isinstance(listed, list) else ():
        if isinstance(call, Mapping) and isinstance(call.get("id"), str):
            yield call["id"]
