"""The commands that run agents or servers; the `threadline` program loads this module only when one is called."""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from pathlib import Path

import click

from threadline.ledger.database import Database
from threadline.settings import ClientSettings

__all__ = ["agents", "demo", "dev", "migrate", "worker"]


@click.command()
@click.option("--concurrency", type=click.IntRange(1, 10_000), help="Jobs at once (THREADLINE_CONCURRENCY).")
@click.option(
    "--queue", "queues", metavar="Q", multiple=True, help="Serve this one (THREADLINE_WORKER_QUEUES); repeat."
)
@click.option("--burst", is_flag=True, help="End once the queues that it serves are empty.")
@click.option("--until-eof", is_flag=True, hidden=True, help="End when standard input ends (dev and demo).")
def worker(concurrency: int | None, queues: tuple[str, ...], burst: bool, until_eof: bool) -> None:
    """Run a worker until SIGTERM or Ctrl-C; the first drains, the second stops at once."""
    from threadline_worker.settings import WorkerSettings  # noqa: PLC0415 - heavy imports wait until they are needed
    from threadline_worker.telemetry.logs import configure_logs  # noqa: PLC0415
    from threadline_worker.telemetry.uncaught import log_what_nobody_catches  # noqa: PLC0415

    settings = WorkerSettings.from_env(concurrency=concurrency, queues=queues)
    configure_logs(settings.log_level, settings.log_format, content=settings.log_content)
    log_what_nobody_catches()
    from threadline_worker.signals import run_worker  # noqa: PLC0415

    run_worker(settings, burst=burst, until_eof=until_eof)


@click.command()
def migrate() -> None:
    """Bring the database to this version; safe to repeat, and for several at once."""
    from threadline_worker.backends import migrate_all  # noqa: PLC0415
    from threadline_worker.memory.index import set_up_index  # noqa: PLC0415
    from threadline_worker.memory.settings import MemorySettings  # noqa: PLC0415

    settings, memory = ClientSettings.from_env(), MemorySettings.from_env()
    if not settings.database_url:
        raise click.UsageError("DATABASE_URL is not set: set it, or run `threadline dev`, which prints one")

    async def run() -> tuple[list[str], str | None]:
        async with Database(settings.direct_url or "", application_name="threadline-migrate", limit=60.0) as database:
            applied = await migrate_all(database, settings.keys, on_wait=partial(click.echo, err=True))
            return applied, await set_up_index(database, settings.keys, memory, settings.vault)

    applied, unindexed = asyncio.run(run())
    if unindexed is not None:
        click.echo(f"memory will be searched without meaning: {unindexed}", err=True)
    for name in applied:
        click.echo(f"applied {name}")
    click.echo("up to date" if not applied else f"{len(applied)} applied; LangGraph's tables are set up")


@click.command()
@click.option(
    "--workers", type=click.IntRange(0, 64), default=2, show_default=True, help="Worker processes to keep up."
)
def dev(workers: int) -> None:
    """Keep Redis, Postgres and workers running here until Ctrl-C; data stays in .threadline/."""
    from threadline_worker.dev import run_dev  # noqa: PLC0415

    run_dev(workers)


@click.command()
@click.option("--question", help="What to research; default: a question about the installed packages.")
@click.option(
    "--corpus",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of .md .txt .html .pdf; default: the installed packages' descriptions.",
)
def demo(question: str | None, corpus: Path | None) -> None:
    """Research a question with two workers, kill one in the middle, and see the other pick the thread up."""
    from threadline_worker.demo.story import DEFAULT_QUESTION, run_demo  # noqa: PLC0415

    run_demo(question or DEFAULT_QUESTION, corpus)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="An array of {name, input_schema, fingerprint}.")
def agents(as_json: bool) -> None:
    """List the agents that a worker here would run, with their input."""
    import os  # noqa: PLC0415

    from threadline.errors import InvalidJob  # noqa: PLC0415
    from threadline_worker.agents.errors import AgentConfigError  # noqa: PLC0415
    from threadline_worker.agents.registry import Agents  # noqa: PLC0415
    from threadline_worker.telemetry.logs import configure_logs  # noqa: PLC0415

    configure_logs("error")
    known = Agents(os.environ.get("THREADLINE_AGENTS", ""), os.environ)

    async def run() -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for name in known.names:
            try:
                async with known.opening(name) as opening:
                    agent = await opening.ready
                    known_of = {"input_schema": agent.input_schema(), "fingerprint": agent.fingerprint}
                    found.append({"name": name, **known_of})
            except (AgentConfigError, InvalidJob) as error:
                found.append({"name": name, "input_schema": None, "error": str(error)})
        return found

    listed = asyncio.run(run())
    if as_json:
        click.echo(json.dumps(listed))
        return
    for agent in listed:
        schema = agent["input_schema"]
        fields = ", ".join(schema.get("properties", {})) if isinstance(schema, dict) else agent["error"]
        click.echo(f"{agent['name']}\t{fields}")
    sys.exit(0)
