"""The demo: two workers, a job from a client, a SIGKILL, a pick-up, a report; it says only what it measured."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from contextlib import aclosing
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import click

from threadline import Client
from threadline.cli.output import is_drawn
from threadline.cli.watch.model import View
from threadline.cli.watch.plain import PlainLines
from threadline.contract.keys import Keys
from threadline.errors import BackendUnavailable
from threadline.job import Job
from threadline.ledger.database import Database
from threadline.ledger.sql import Queries
from threadline.settings import ClientSettings
from threadline_worker.demo.director import Director
from threadline_worker.dev import DATA_DIR, interruptible, prepare, worker_env
from threadline_worker.embedded import ServerUrls, embedded_servers
from threadline_worker.local_workers import LocalWorkers

__all__ = ["DEFAULT_QUESTION", "run_demo"]

DEFAULT_QUESTION = "What is the fastest JSON library?"
#: The demo's own namespace: a `threadline dev` in the same folder must not take its job.
_KEYS = Keys("demo")
#: Shorter than the default (15 s), because the demo's workers are only seconds old when one of them dies (V2).
_LEASE_SECONDS = 3.0
#: A pace that a person can follow.
_TOKENS_PER_SECOND = "50"
_READY_SECONDS = 60.0


class _Told(NamedTuple):
    """What the closing table says."""

    report: Path
    steps_done: int
    steps_again: int
    director: Director


def run_demo(question: str, corpus: Path | None) -> None:
    """Play it. Raises BackendUnavailable and what the job raises; leaves no process behind, however it ends."""
    folder = (DATA_DIR / "demo").absolute()
    # The demo's servers are always embedded ones: it must not kill anything on servers that somebody else uses.
    env = {name: value for name, value in os.environ.items() if name not in {"REDIS_URL", "DATABASE_URL"}}
    with interruptible(), embedded_servers(DATA_DIR, env=env, on_progress=_say) as urls:
        folder.mkdir(parents=True, exist_ok=True)
        asyncio.run(prepare(urls, _KEYS))
        worker = worker_env(
            urls,
            THREADLINE_NAMESPACE=_KEYS.namespace,
            THREADLINE_CORPUS=str(corpus.absolute() if corpus else _default_corpus(folder)),
            THREADLINE_LEASE_SECONDS=f"{_LEASE_SECONDS:g}",
            THREADLINE_LOG_FORMAT="json",
            THREADLINE_AGENTS="",
        )
        worker.setdefault("THREADLINE_OFFLINE_TOKENS_PER_SECOND", _TOKENS_PER_SECOND)
        with LocalWorkers(worker) as workers:
            for number in (1, 2):
                workers.start(f"worker {number}", log=folder / f"worker-{number}.log")
            told = asyncio.run(_play(urls, workers, question, folder))
    _close(told)


async def _play(urls: ServerUrls, workers: LocalWorkers, question: str, folder: Path) -> _Told:
    async with (
        Database(urls.database_url, application_name="threadline-demo") as database,
        Client(settings=_settings(urls)) as client,
    ):
        await _ready(database, workers)
        _say(f"two workers are ready: {', '.join(f'{w.name} (pid {w.pid})' for w in workers.all)}")
        _say("a service enqueues:\n" + _indented(f'await client.enqueue("research", {question!r}, user_id="demo")'))
        job = await client.enqueue("research", question, user_id="demo")
        director = await _follow(job, workers)
        result = await job.result(timeout=30)
        path = folder / f"{_slug(question)}.md"
        path.write_text(result["report"], encoding="utf-8")
        steps = await database.row(_query("steps"), {"thread_id": job.thread_id})
        _print_report(result["report"])
        return _Told(path, steps["done"] if steps else 0, steps["again"] if steps else 0, director)


async def _follow(job: Job, workers: LocalWorkers) -> Director:
    """Show the job until it ends, and kill its worker in the middle."""
    view = View(job_id=job.job_id, thread_id=job.thread_id, agent="research", began=time.time())
    with _display(view) as display:
        director = Director(
            lambda worker_id: display.tell(f"» {_kill(workers, worker_id)}"),
            ready_at=time.monotonic() + _LEASE_SECONDS,
        )
        async with aclosing(job.events()) as events:
            async for event in events:
                display.take(event)
                director.saw(event)
    return director


def _display(view: View) -> Any:
    if not is_drawn():
        return PlainLines(view)
    from threadline.cli.watch.live import LivePicture  # noqa: PLC0415 - rich is for terminals

    return LivePicture(view)


async def _ready(database: Database, workers: LocalWorkers) -> None:
    """Until both have beaten. Raises BackendUnavailable if one ends, or does not come."""
    try:
        async with asyncio.timeout(_READY_SECONDS):
            while True:
                row = await database.row(_query("workers"))
                if row is not None and row["ready"] >= len(workers.all):
                    return
                for worker in workers.all:
                    if worker.code is not None:
                        raise BackendUnavailable(
                            f"{worker.name} ended with {worker.code}: see its log in {DATA_DIR}/demo"
                        )
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise BackendUnavailable(
            f"the workers were not ready within {_READY_SECONDS:g} s: see {DATA_DIR}/demo"
        ) from error


def _kill(workers: LocalWorkers, worker_id: str) -> str:
    """SIGKILL the worker of this id, which is `host-pid-random`; says what was done."""
    pid = int(worker_id.rsplit("-", 2)[1])
    for worker in workers.all:
        if worker.pid == pid:
            worker.kill()
            return f"kill -9 {pid}: {worker.name}, in the middle of its work"
    raise BackendUnavailable(f"the job runs on {worker_id}, which is no worker of this demo")


def _close(told: _Told) -> None:
    director = told.director
    pickup = "–" if director.pickup_seconds is None else f"{director.pickup_seconds:.1f} s"
    rows = (
        ("jobs", "1 enqueued, 1 succeeded"),
        (
            "workers",
            "2 started, 1 killed" if director.killed_at is not None else "2 started, none killed: it was over first",
        ),
        ("steps done", str(told.steps_done)),
        ("steps run again after their commit", str(told.steps_again)),
        ("pick-up, from SIGKILL to the next worker's first event", pickup),
        ("events received", str(director.received)),
        ("gaps", str(director.gaps)),
    )
    width = max(len(name) for name, _ in rows)
    click.echo("")
    for name, value in rows:
        click.echo(f"  {name:<{width}}  {value}")
    shown = os.path.relpath(told.report)
    click.echo(f"\nThe report is in {shown if not shown.startswith('..') else told.report}")


def _print_report(report: str) -> None:
    click.echo("")
    if not is_drawn():
        click.echo(report)
        return
    from rich.console import Console  # noqa: PLC0415 - rich is for terminals
    from rich.markdown import Markdown  # noqa: PLC0415

    Console().print(Markdown(report))


def _default_corpus(folder: Path) -> Path:
    """What the installed packages say of themselves: real text that nobody here wrote."""
    from threadline_worker.agents.research.package_corpus import write_package_descriptions  # noqa: PLC0415

    corpus = folder / "corpus"
    count = write_package_descriptions(corpus)
    _say(f"the corpus is what {count} installed Python packages say of themselves")
    return corpus


def _settings(urls: ServerUrls) -> ClientSettings:
    return ClientSettings(redis_url=urls.redis_url, database_url=urls.database_url, keys=_KEYS)


def _query(name: str) -> Any:
    return Queries(_KEYS.schema).fill((files(__package__) / f"{name}.sql").read_text(encoding="utf-8"))


def _slug(question: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", question.lower()).strip("-")[:60] or "report"


def _indented(text: str) -> str:
    return "    " + text


def _say(sentence: str) -> None:
    drawn = sys.stdout.isatty()
    mark = click.style("»", fg="cyan") if drawn else "»"
    click.echo(f"{mark} {sentence}", err=not drawn)
