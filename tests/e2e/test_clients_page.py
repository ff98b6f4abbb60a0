"""What docs/clients.md shows runs as it stands; frameworks are tried where they are installed."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest

from support.ledger import Bench, bench_on
from support.markdown import block
from support.workers import WorkerHandle
from threadline import JobNotFound, testing
from threadline.contract.states import State

PAGE = "docs/clients.md"
T = TypeVar("T")


def written(folder: Path, *names: str) -> Path:
    """The folder with these programs of the page in it."""
    for name in names:
        (folder / name).write_text(block(PAGE, name))
    return folder


def loaded(folder: Path, name: str) -> ModuleType:
    """One of the page's programs as a module."""
    written(folder, f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # annotations are looked up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def on_servers(redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `from_env` reads."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("DATABASE_URL", database_url)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[testing.SyncClient]:
    """The page's programs get a testing client from `threadline.sync.Client.from_env`."""
    with testing.SyncClient(agents=["research"]) as client:
        client.script("research", events=[("updates", {"a": 1})], result={"report": "r"})
        monkeypatch.setattr("threadline.sync.Client.from_env", lambda *_: client)
        yield client


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    async with bench_on(database_url, workers=()) as made:
        yield made


def test_the_script_reports(workers: Callable[..., WorkerHandle], env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "json.md").write_text("# JSON\n\nThe fastest JSON library in this test is called orjson.\n")
    workers(THREADLINE_CORPUS=str(tmp_path / "corpus"))
    command = [sys.executable, "report.py", "What is the fastest JSON library?"]
    folder = written(tmp_path, "report.py")
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# What is the fastest JSON library?")
    assert done.stderr.splitlines()[:2] == ["0-1 queued", "1-1 started"]


def test_the_tests_of_a_producer_pass(tmp_path: Path) -> None:
    folder = written(tmp_path, "service.py", "test_service.py")
    plugins = ["-p", "no:cacheprovider", "-p", "no:valkey"]
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(folder), *plugins]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_a_failing_assertion_looks_as_shown(tmp_path: Path) -> None:
    service = loaded(tmp_path, "service")
    client = testing.Client()
    client.script("research", result={"report": "r"})
    asyncio.run(service.answer(client, "42", "What changed?"))
    with pytest.raises(AssertionError) as caught:
        client.assert_enqueued("research", thread_id="user-7", count=1)
    assert f"AssertionError: {caught.value}\n" == block(PAGE, "failure")


async def test_fastapi_streams_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi")
    import httpx

    client = testing.Client(agents=["research"])
    client.script("research", events=[("updates", {"a": 1})], result={"report": "r"})
    monkeypatch.setattr("threadline.Client.from_env", lambda: client)
    app = loaded(tmp_path, "fastapi_app").app
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app", headers={"x-user": "me"}) as http,
    ):
        asked = await http.post("/threads/t/questions", params={"question": "What changed?"})
        assert asked.status_code == 202
        job_id = asked.json()["job_id"]
        client.assert_enqueued("research", thread_id="t", user_id="me", input="What changed?")
        followed = await http.get(f"/jobs/{job_id}/events")
        assert followed.headers["content-type"].startswith("text/event-stream")
        assert ids(followed.text) == ["0-1", "1-1", "1-2", "2-1"]
        again = await http.get(f"/jobs/{job_id}/events", headers={"last-event-id": "1-2"})
        assert ids(again.text) == ["2-1"]
        assert (await http.get(f"/jobs/{job_id}/events", headers={"x-user": "you"})).status_code == 404
        assert (await http.post("/threads/t/questions", params={"question": ""})).status_code == 400


def test_flask_streams_progress(tmp_path: Path, scripted: testing.SyncClient) -> None:
    pytest.importorskip("flask")
    http = loaded(tmp_path, "flask_app").app.test_client()
    asked = http.post("/questions", data={"question": "What changed?"}, headers={"Idempotency-Key": "k"})
    assert asked.status_code == 202
    scripted.assert_enqueued("research", input="What changed?", idempotency_key="k")
    job_id = asked.json["job_id"]
    assert http.get(f"/jobs/{job_id}").json == {"state": "succeeded", "error": None}
    followed = http.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": "0-1"})
    assert [json.loads(line[6:])["id"] for line in followed.text.splitlines() if line] == ["1-1", "1-2", "2-1"]
    assert http.get("/jobs/nobody").status_code == 404
    assert http.post("/questions", data={"question": ""}).status_code == 400


async def test_djangos_transaction_is_the_jobs(
    tmp_path: Path, on_servers: None, bench: Bench, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("django")
    views, http = await asyncio.to_thread(_django, tmp_path, database_url, monkeypatch)
    try:
        asked = await _in_a_thread(http.post, "/ask", {"question": "What changed?"})
        assert asked.status_code == 202
        job_id = asked.json()["job_id"]
        row = await bench.row(job_id)
        assert (row["user_id"], row["input"], row["idempotency_key"]) == ("7", "What changed?", "ticket-1")
        assert await _in_a_thread(_tickets, views) == [job_id]

        # A request that fails after its enqueue leaves neither.
        monkeypatch.setattr(views.Ticket, "save", _fail_behind_the_insert(views.Ticket.save))
        with pytest.raises(ZeroDivisionError):
            await _in_a_thread(http.post, "/ask", {"question": "and then?"})
        assert await _in_a_thread(_tickets, views) == [job_id]
        assert [status.job_id for status in await bench.ledger.jobs()] == [job_id]

        await bench.worker("w1", agents='{"research": {"text_input": null}}')
        claim = await bench.claim(job_id)
        await bench.ledger.finish(claim, State.SUCCEEDED, result={"report": "r"})
        missing = await _in_a_thread(http.get, "/jobs/nobody/events")
        assert missing.status_code == 404
        followed = await _in_a_thread(http.get, f"/jobs/{job_id}/events")
        streamed = await _in_a_thread(lambda: b"".join(followed.streaming_content).decode())
        assert ids(streamed)[-1] == "2-1"
        with pytest.raises(JobNotFound):
            await _in_a_thread(views.client.job, "nobody")
    finally:
        await _in_a_thread(views.client.close)


def ids(stream: str) -> list[str]:
    """The `id` of each server-sent event."""
    return [line[4:] for line in stream.splitlines() if line.startswith("id: ")]


async def _in_a_thread(call: Callable[..., T], *arguments: Any) -> T:
    """As in a thread of a web server, where Django closes its connection at the end."""
    from django.db import connections

    def closing() -> T:
        try:
            return call(*arguments)
        finally:
            connections.close_all()

    return await asyncio.to_thread(closing)


def _tickets(views: ModuleType) -> list[str]:
    return list(views.Ticket.objects.values_list("job_id", flat=True))


def _fail_behind_the_insert(save: Callable[..., None]) -> Callable[..., None]:
    def failing(ticket: Any, **options: Any) -> None:
        if ticket.job_id:
            raise ZeroDivisionError
        save(ticket, **options)

    return failing


def _django(folder: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, Any]:
    """A project of one app with the page's views; its views and a test client."""
    import django
    from django.conf import settings
    from psycopg.conninfo import conninfo_to_dict

    app = folder / "tickets"
    app.mkdir()
    written(app, "views.py")
    (app / "__init__.py").touch()
    (app / "models.py").write_text(
        textwrap.dedent("""\
            from django.db import models

            class Ticket(models.Model):
                question = models.TextField()
                job_id = models.TextField(default="")
            """)
    )
    (app / "urls.py").write_text(
        textwrap.dedent("""\
            from django.urls import path
            from . import views

            urlpatterns = [path("ask", views.ask), path("jobs/<job_id>/events", views.follow)]
            """)
    )
    (app / "middleware.py").write_text(
        textwrap.dedent("""\
            from types import SimpleNamespace

            def user(get_response):
                def respond(request):
                    request.user = SimpleNamespace(pk=7)
                    return get_response(request)
                return respond
            """)
    )
    monkeypatch.syspath_prepend(str(folder))
    parts = conninfo_to_dict(database_url)
    names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password", "NAME": "dbname"}
    database = {name: str(parts[key]) for name, key in names.items()}
    settings.configure(
        SECRET_KEY="x",
        ROOT_URLCONF="tickets.urls",
        INSTALLED_APPS=["tickets"],
        MIDDLEWARE=["tickets.middleware.user"],
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", **database}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        ALLOWED_HOSTS=["*"],
        USE_TZ=True,
    )
    django.setup()
    from django.db import connection
    from django.test import Client

    views = importlib.import_module("tickets.views")
    with contextlib.closing(connection), connection.schema_editor() as editor:
        editor.create_model(views.Ticket)
    return views, Client()
