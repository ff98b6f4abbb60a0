"""One job is one trace, from the producer's enqueue to the result, across the death of a worker; real processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from support.desk import LedgerView
from support.gates import Gates
from support.nursery import called
from support.otlp_receiver import Collector, Seen, collecting
from support.traced_agent import SECRET_WORD
from support.workers import WorkerHandle
from threadline import Client, sync
from threadline.contract.traceparent import job_span_id, run_span_id
from threadline.errors import JobFailed

PRODUCER, CONSUMER, CLIENT = 4, 5, 3
QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.25", "THREADLINE_LEASE_SECONDS": "1.5"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@pytest.fixture
def traced(env: dict[str, str], collector: Collector) -> dict[str, str]:
    """What a worker that traces needs; the servers are in `env`."""
    agents = env["THREADLINE_AGENTS"] + ",traced=support.traced_agent:traced"
    return {
        **QUICK,
        "THREADLINE_AGENTS": agents,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=tests",
    }


@pytest.fixture
def provider(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> TracerProvider:
    """OpenTelemetry as a producer sets it up; only for this test."""
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{collector.endpoint}/v1/traces")))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", made)
    return made


def named(spans: list[Seen], name: str) -> list[Seen]:
    return [span for span in spans if span.name == name]


def finished(job_id: str):
    """The job's own span is the last that is sent."""
    return lambda spans: any(span.span_id == job_span_id(job_id) for span in spans)


async def killed_in_wait(
    client: Client, env: dict[str, str], collector: Collector, worker: WorkerHandle, **options: object
) -> str:
    """A job whose worker was killed in its third committed step's successor, once all before it has arrived."""
    gates = Gates(env)
    gate = Path(env["TEST_GATES"]) / "t.wait"
    gate.touch()
    job = await client.enqueue("traced", f"What is {SECRET_WORD}?", thread_id="t", user_id="u-CANARY", **options)
    await gates.begun("t", 0)
    collector.until(
        lambda spans: sum("step" in span.name and span.parent_id == run_span_id(job.job_id, 1) for span in spans) >= 5
    )
    worker.kill()
    gate.unlink()
    return job.job_id


async def test_one_job_is_one_trace_from_enqueue_to_result_also_when_its_worker_is_killed(  # noqa: PLR0917 - fixtures
    client, workers, env, traced, collector, provider
) -> None:
    first = workers(**traced)
    with trace.get_tracer("shop").start_as_current_span("POST /questions") as request:
        job_id = await killed_in_wait(client, env, collector, first)
    second = workers(**traced)
    await (await client.job(job_id)).result(timeout=20)
    second.terminate()
    spans = collector.until(finished(job_id))
    by_id = {span.span_id: span for span in spans}

    assert {span.trace_id for span in spans} == {f"{request.get_span_context().trace_id:032x}"}
    assert [span.name for span in spans if span.parent_id not in by_id] == ["POST /questions"]
    assert len(by_id) == len(spans)
    [asked], [job] = named(spans, "enqueue traced"), named(spans, "job traced")
    assert (asked.kind, asked.attributes["messaging.message.id"]) == (PRODUCER, job_id)
    assert (job.parent_id, job.attributes["threadline.state"], job.error) == (asked.span_id, "succeeded", None)

    dead, alive = sorted(named(spans, "run traced"), key=lambda span: span.attributes["threadline.epoch"])
    assert {dead.parent_id, alive.parent_id} == {job.span_id}
    assert (dead.error, dead.attributes["threadline.worker_id"]) == ("dead_worker", first.worker_id)
    assert alive.attributes["threadline.previous_worker_id"] == first.worker_id
    assert (alive.attributes["threadline.kind"], alive.attributes["threadline.epoch"]) == ("resume", 3)
    assert alive.resource["service.name"] == "threadline-worker"
    assert alive.resource["deployment.environment.name"] == "tests"

    steps = [span for span in spans if span.parent_id in {dead.span_id, alive.span_id} and span.name.startswith("step")]
    assert all(span.attributes["threadline.step.committed"] for span in steps)
    numbers = [span.attributes["threadline.step"] for span in sorted(steps, key=lambda span: span.start)]
    assert numbers == list(range(len(numbers)))  # each once: the one in flight was repeated, and told once
    check_calls(spans, by_id)
    assert SECRET_WORD not in repr(spans)


def check_calls(spans: list[Seen], by_id: dict[str, Seen]) -> None:
    """Model and tool calls, the subagent's below the tool that started it."""

    def above(span: Seen) -> Iterator[str]:
        while span.parent_id in by_id:
            span = by_id[span.parent_id]
            yield span.name

    chats = named(spans, "chat scripted-1")
    assert len(chats) == 5
    assert Counter("execute_tool task" in above(span) for span in chats) == {True: 2, False: 3}
    assert {span.kind for span in chats} == {CLIENT}
    assert chats[0].attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "tests",
        "gen_ai.request.model": "scripted-1",
        "gen_ai.response.model": "scripted-1-today",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
    }
    [task], [note], [_wait] = (named(spans, f"execute_tool {name}") for name in ("task", "note", "wait"))
    assert "execute_tool task" in above(note)
    assert task.attributes["gen_ai.tool.call.id"] == "leader-0-0"
    inner = [span for span in spans if span.parent_id == task.span_id]
    assert [span.attributes["threadline.step"] for span in sorted(inner, key=lambda span: span.start)] == [1, 2, 3, 4]
    assert {span.attributes["gen_ai.agent.name"] for span in inner} == {"alpha"}
    assert all(span.attributes["threadline.step.committed"] for span in inner)
    [own] = named(spans, "own span of a tool")
    assert by_id[own.parent_id].name == "run traced"


async def test_without_opentelemetry_in_the_producer_the_trace_is_the_jobs_id_and_a_failure_is_an_error(
    client, workers, env, traced, collector
) -> None:
    worker = workers(**traced)
    Gates(env).fail("t", "ValueError")
    job = await client.enqueue("fails", {"done": []}, thread_id="t")
    with pytest.raises(JobFailed):
        await job.result(timeout=20)
    spans = collector.until(finished(job.job_id))
    assert {span.trace_id for span in spans} == {job.job_id}
    [whole], [run] = named(spans, "job fails"), named(spans, "run fails")
    assert (whole.parent_id, whole.error, whole.attributes["threadline.state"]) == ("", "error", "failed")
    assert (run.parent_id, run.error) == (whole.span_id, "error")
    failed = next(span for span in spans if span.attributes.get("threadline.nodes") == ["fail"])
    assert (failed.parent_id, failed.error) == (run.span_id, "ValueError")
    assert failed.attributes["threadline.step.committed"] is False
    assert "as ordered" not in repr(spans)
    claimed = worker.logged("job.claimed")
    assert claimed["trace_id"] == job.job_id


async def test_what_is_not_sampled_nobody_records_and_the_traceparent_travels_all_ways(  # noqa: PLR0917 - fixtures
    client, workers, traced, collector, provider, redis_url, database_url
) -> None:
    workers(**traced)
    unsampled = NonRecordingSpan(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(0)))
    with trace.use_span(unsampled):
        job = await client.enqueue("steps", {"done": [], "until": 1})
        await job.result(timeout=20)
    tracer = trace.get_tracer("shop")
    with tracer.start_as_current_span("blocking"), sync.Client(database_url=database_url) as blocking:
        from_sync = blocking.enqueue("steps", {"done": [], "until": 1}).job_id
    async with Client(redis_url=redis_url) as light:
        with tracer.start_as_current_span("carried"):
            carried = (await light.enqueue("steps", {"done": [], "until": 1})).job_id
    given = (await client.enqueue("steps", {"done": [], "until": 1}, traceparent=f"00-{3:032x}-{4:016x}-01")).job_id
    spans = collector.until(lambda spans: all(finished(job_id)(spans) for job_id in (from_sync, carried, given)))
    assert finished(job.job_id)(spans) is False
    by_id = {span.span_id: span for span in spans}
    for job_id, outermost in ((from_sync, "blocking"), (carried, "carried")):
        asked = by_id[by_id[job_span_id(job_id)].parent_id]
        assert (asked.kind, by_id[asked.parent_id].name) == (PRODUCER, outermost)
    assert by_id[job_span_id(given)].trace_id == f"{3:032x}"
    assert by_id[job_span_id(given)].parent_id == f"{4:016x}"


@pytest.mark.parametrize("hang", [False, True], ids=["away", "silent"])
async def test_a_collector_that_is_away_or_silent_delays_neither_a_job_nor_the_end_of_a_drain(
    client, workers, traced, hang
) -> None:
    with collecting(hang=hang) as lost:
        if not hang:
            lost.server_close()  # nobody listens at its port
        # The SDK by itself would try for so long, at each batch and at the end.
        slow = {"OTEL_EXPORTER_OTLP_ENDPOINT": lost.endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "60"}
        worker = workers(**{**traced, **slow})
        for _ in range(3):
            job = await client.enqueue("steps", {"done": [], "until": 10})
            await job.result(timeout=20)
        if hang:
            assert lost.asked.wait(10)
        assert worker.terminate(timeout=20) == 0


async def test_an_answers_job_goes_on_in_the_trace_of_its_question(
    client, workers, traced, collector, provider
) -> None:
    workers(**traced)
    with trace.get_tracer("shop").start_as_current_span("POST /questions"):
        asking = await client.enqueue("ask", {"done": [], "until": 1}, thread_id="t")
    collector.until(finished(asking.job_id))
    answer = await client.resume("t", 3)
    spans = collector.until(finished(answer.job_id))
    asked, answered = (
        next(span for span in spans if span.span_id == job_span_id(job.job_id)) for job in (asking, answer)
    )
    assert (asked.attributes["threadline.state"], asked.error) == ("interrupted", None)
    assert answered.trace_id == asked.trace_id
    assert answered.links == [(asked.trace_id, asked.span_id)]


def test_the_command_line_takes_the_shells_trace_and_a_repeated_key_the_first_ones(env, database_url) -> None:
    def enqueued(traceparent: str) -> str:
        arguments = ("enqueue", "steps", '{"done": [], "until": 1}', "--input-json", "--idempotency-key", "k")
        done = called(arguments, {**env, "TRACEPARENT": traceparent}, stdin="", timeout=20)
        assert (done.returncode, done.stderr) == (0, "")
        return str(done.stdout.strip())

    first = f"00-{1:032x}-{2:016x}-01"
    job_id = enqueued(first)
    assert enqueued(f"00-{3:032x}-{4:016x}-01") == job_id
    [row] = LedgerView(database_url).rows("SELECT options->>'traceparent' AS traceparent FROM jobs")
    assert row["traceparent"] == first


def test_kinds_are_opentelemetrys() -> None:
    """The protocol's numbers are one above the API's."""
    assert [kind.value + 1 for kind in (SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.CLIENT)] == [
        PRODUCER,
        CONSUMER,
        CLIENT,
    ]
