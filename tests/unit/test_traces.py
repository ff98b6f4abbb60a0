"""A trace's ids are the same everywhere, whoever asks for traces is heard, and nobody else pays for them."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

from support.log_lines import log_lines
from threadline import testing
from threadline.contract.traceparent import (
    job_span_id,
    run_span_id,
    sampled,
    span_id_of,
    trace_id_of,
    traceparent_of,
    well_formed,
)
from threadline_worker.doctor import _check_traces
from threadline_worker.telemetry.trace_export import OtlpExport
from threadline_worker.telemetry.trace_run import JobTraces
from threadline_worker.telemetry.trace_steps import TraceSteps
from threadline_worker.telemetry.traces import NO_TRACE, NO_TRACES, Span, missing_extra, traces_of, wanted

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
GIVEN = f"00-{'a' * 32}-{'b' * 16}-01"


def test_a_traceparent_is_taken_apart_and_put_together() -> None:
    assert traceparent_of(int("a" * 32, 16), int("b" * 16, 16), is_sampled=True) == GIVEN
    assert (trace_id_of("j", GIVEN), span_id_of(GIVEN), sampled(GIVEN)) == ("a" * 32, "b" * 16, True)
    assert sampled(traceparent_of(1, 2, is_sampled=False)) is False
    assert span_id_of("00-nonsense") is None


def test_ids_follow_from_the_job_and_the_epoch_alone_and_are_w3cs() -> None:
    """These values are a contract between releases: another worker goes on with them."""
    assert job_span_id("j") == "7005dca93a3ab439"
    assert run_span_id("j", 1) == "1290129a954aea9b"
    assert len({job_span_id("j"), *(run_span_id("j", epoch) for epoch in range(100))}) == 101
    assert well_formed(f"00-{trace_id_of('a job of ours')}-{job_span_id('j')}-01")


@pytest.mark.parametrize(
    ("env", "by"),
    [
        ({}, None),
        (ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "OTEL_TRACES_EXPORTER"),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, None),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, None),
        ({"OTEL_SERVICE_NAME": "mine"}, None),
    ],
)
def test_traces_are_made_where_an_endpoint_or_exporter_asks_for_them(env, by) -> None:
    assert wanted(env) == by
    if by is None:
        assert traces_of(env, "w") is NO_TRACES


def test_without_the_extra_a_worker_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)  # as if it were not there
    problem = missing_extra(ENDPOINT)
    asked = "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces"
    assert problem == f"{asked}, and OpenTelemetry is not installed: pip install 'threadline[tracing]'"
    assert missing_extra({}) is None
    assert traces_of(ENDPOINT, "w") is NO_TRACES
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert [finding[:3] for finding in _check_traces()] == [("traces", "warn", problem)]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "the exporter zipkin is not installed: use otlp"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "max_queue_size must be a positive integer"),
    ],
)
def test_variables_that_cannot_be_followed_are_said_and_no_worker_stays_away(name, value, said, monkeypatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr("threadline_worker.telemetry.traces.log.warning", lambda _event, **more: told.append(more))
    env = {**ENDPOINT, name: value}
    for key, text in env.items():
        monkeypatch.setenv(key, text)
    assert traces_of(env, "w") is NO_TRACES
    [line] = told
    assert said in line["problem"]


def test_a_variable_that_the_sdk_itself_refuses_is_said_and_no_worker_stays_away(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.sdk.trace")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many")
    assert "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be" in str(missing_extra(ENDPOINT))
    assert traces_of(ENDPOINT, "w") is NO_TRACES


def export(sampler: Sampler) -> OtlpExport:
    return OtlpExport({}, Resource({}), sampler, None)


def test_every_worker_samples_the_same_jobs_in_the_configured_share() -> None:
    """The bits that a uuid fixes are among those that OpenTelemetry's sampler looks at: by them half would be none."""
    one, other = (export(ParentBased(TraceIdRatioBased(0.5))) for _ in range(2))
    jobs = [uuid.UUID(int=number * 7919 + (1 << 127), version=4).hex for number in range(2_000)]
    chosen = [job for job in jobs if one.sampled(job, None)]
    assert chosen == [job for job in jobs if other.sampled(job, None)]
    assert 900 < len(chosen) < 1_100


def test_a_traceparents_flag_decides() -> None:
    never = export(ParentBased(TraceIdRatioBased(0.0)))
    assert never.sampled("j", GIVEN)
    assert not export(ParentBased(ALWAYS_ON)).sampled("j", GIVEN[:-1] + "0")


async def test_the_span_of_an_enqueue_names_the_queue_that_the_map_chose(monkeypatch) -> None:
    kept, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    async with testing.Client(queues={"asks": "slow"}) as client:
        await client.enqueue("asks", {})
        await client.enqueue("else", {})
    queues = [(span.attributes or {})["messaging.destination.name"] for span in kept.get_finished_spans()]
    assert queues == ["threadline:queue:{slow}", "threadline:queue"]


class Kept:
    """An export that keeps what it gets."""

    def __init__(self) -> None:
        self.sent: list[list[Span]] = []
        self._ids = 0

    def new_id(self) -> int:
        self._ids += 1
        return self._ids

    def send(self, spans: Iterable[Span]) -> None:
        self.sent.append(list(spans))


def test_a_step_is_sent_whole_when_it_is_durable_its_own_span_first() -> None:
    """Whatever a killed worker has sent, each span's parent is there."""
    kept, graph, node, call = Kept(), uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    steps = TraceSteps(kept, 1, lambda: 99)
    steps.on_chain_start({}, {}, run_id=graph)
    at = {"langgraph_checkpoint_ns": "tools:1", "langgraph_node": "tools"}
    steps.on_chain_start({}, {}, run_id=node, parent_run_id=graph, tags=["graph:step:3"], metadata=at)
    steps.on_tool_start({"name": "look"}, "", run_id=call, parent_run_id=node)
    steps.on_tool_error(ValueError("words"), run_id=call)
    steps.on_chain_error(ValueError("words"), run_id=node)
    assert kept.sent == []
    steps.committed("", 3)
    [[step, tool]] = kept.sent
    assert (step.name, step.parent_id, step.error) == ("step 3", 99, None)
    assert (tool.name, tool.parent_id, tool.error) == ("execute_tool look", step.span_id, "ValueError")
    steps.committed("", 4)
    assert [span.name for span in kept.sent[1]] == ["step 4"]  # one in which nothing ran


def test_what_is_open_at_the_end_is_sent_and_was_not_committed() -> None:
    kept, graph, node, call = Kept(), uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    steps = TraceSteps(kept, 1, lambda: 99)
    steps.on_chain_start({}, {}, run_id=graph)
    steps.on_chain_start({}, {}, run_id=node, parent_run_id=graph, tags=["graph:step:0"], metadata={})
    steps.on_chat_model_start({}, [], run_id=call, parent_run_id=node, metadata={"ls_model_name": "m"})
    steps.close()
    [[step, chat]] = kept.sent
    assert step.attributes["threadline.step.committed"] is False
    assert (chat.name, chat.parent_id) == ("chat m", step.span_id)
    steps.on_llm_end(_no_answer(), run_id=call)  # too late, and told
    assert len(kept.sent) == 1


def _no_answer() -> Any:
    from langchain_core.outputs import LLMResult

    return LLMResult(generations=[])


class Broken(Sampler):
    """Somebody's own, which OTEL_TRACES_SAMPLER names."""

    def should_sample(self, *_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError("words")

    def get_description(self) -> str:
        return "broken"


def test_a_trace_that_cannot_be_told_ends_no_job_and_no_sweep() -> None:
    claim: Any = SimpleNamespace(kind="input", job_id="j", epoch=1, options={})
    with log_lines() as lines:
        broken = JobTraces(export(Broken()))
        assert broken.run(claim) is NO_TRACE
        broken.taken({"kind": "input", "job_id": "j", "options": None})
        run = JobTraces(export(ALWAYS_ON)).run(claim)
        run.committed("", 0)
        run.ended(claim, {})  # a row without its columns
    assert [entry["event"] for entry in lines.entries] == ["trace.failed"] * 3


def test_without_the_variables_nothing_of_an_exporter_is_loaded_and_nothing_at_all_in_a_producer() -> None:
    """LangChain's own langsmith imports the SDK where it is installed; the rest costs time and threads."""
    code = (
        "import sys\n"
        "import threadline.client, threadline.sync, threadline.cli.enqueue, threadline.calls.traces\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        "import threadline_worker.signals\n"
        "from threadline_worker.telemetry.traces import NO_TRACES, traces_of\n"
        "assert traces_of({}, 'w') is NO_TRACES\n"
        "heavy = ('opentelemetry.exporter', 'threadline_worker.telemetry.trace_export')\n"
        "assert not [name for name in sys.modules if name.startswith(heavy)]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert not NO_TRACE.callbacks
