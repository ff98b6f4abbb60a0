"""A real Prometheus scrapes real workers through good and bad times, and every panel of the dashboard shows something.

Not collected by `make test`: `make deploy-check` runs it (PROMETHEUS_PROGRAM is the program). With PICTURE=file the
dashboard is drawn there from what Prometheus has answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from support.estate import DEPLOY
from support.gates import Gates, until
from support.receiver import receiving
from support.workers import WorkerHandle, Workers
from threadline import Client, JobFailed

PATIENCE = 90.0
RATE = "10s"
QUICK = {"THREADLINE_HEARTBEAT_SECONDS": "0.5", "THREADLINE_LEASE_SECONDS": "4", "THREADLINE_DRAIN_SECONDS": "6"}
SENDING = {
    "THREADLINE_WEBHOOK_SECRETS": "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0",
    "THREADLINE_WEBHOOK_ALLOW": "127.0.0.1",
}


def script(name: str) -> Any:
    """A script of deploy/grafana as a module."""
    spec = importlib.util.spec_from_file_location(name, DEPLOY / "grafana" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Prometheus:
    """Scrapes each second whatever `watch` was told of."""

    def __init__(self, folder: Path, url: str) -> None:
        self._targets = folder / "targets.json"
        self._url = url
        self._known: list[str] = []

    def watch(self, worker: WorkerHandle) -> WorkerHandle:
        self._known.append(worker.metrics_url.removeprefix("http://").removesuffix("/metrics"))
        # A whole file at once: Prometheus looks at every change.
        written = self._targets.with_suffix(".new")
        written.write_text(json.dumps([{"targets": self._known}]))
        written.rename(self._targets)
        return worker

    def series(self, expression: str, since: float, until: float | None = None) -> list[dict[str, Any]]:
        """What the expression gave, second by second, without what is no number."""
        query = expression.replace("$__rate_interval", RATE)
        asked = {"query": query, "start": f"{since}", "end": f"{until or time.time()}", "step": "1"}
        answer = httpx.get(f"{self._url}/api/v1/query_range", params=asked)
        assert answer.status_code == 200, answer.text
        found = []
        for one in answer.json()["data"]["result"]:
            values = [(at - since, float(text)) for at, text in one["values"] if not math.isnan(float(text))]
            if values:
                found.append({"labels": one["metric"], "values": values})
        return found

    def alerts(self) -> set[str]:
        """The names of those that are pending or firing."""
        answer = httpx.get(f"{self._url}/api/v1/alerts").json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in answer}


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    (tmp_path / "targets.json").write_text("[]")
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(DEPLOY / "prometheus" / "rules.yml")],
        "scrape_configs": [
            {"job_name": "threadline", "file_sd_configs": [{"files": [str(tmp_path / "targets.json")]}]}
        ],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    command = [os.environ["PROMETHEUS_PROGRAM"], f"--config.file={tmp_path}/prometheus.yml",
               f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address={address}"]  # fmt: skip
    with (tmp_path / "prometheus.log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"http://{address}/-/ready").status_code == 200:
                        break
                assert time.monotonic() < deadline, (tmp_path / "prometheus.log").read_text()
                time.sleep(0.1)
            yield Prometheus(tmp_path, f"http://{address}")
        finally:
            process.terminate()


@contextlib.asynccontextmanager
async def load(client: Client, receiver_url: str) -> AsyncIterator[None]:
    """Jobs of every kind, one after the other and some at once, until the block ends."""

    async def keep_busy(number: int) -> None:
        turn = 0
        while True:
            turn += 1
            steps = {"done": [], "until": 3 + turn % 5}
            job = await client.enqueue("steps", steps, webhook_url=receiver_url if turn % 10 == 0 else None)
            await job.result(timeout=60)
            if number == 0:
                await (await client.enqueue("research", "How is a dead worker noticed?")).result(timeout=60)
                await client.state(job.thread_id, timeout=60)

    tasks = [asyncio.create_task(keep_busy(number)) for number in range(3)]
    try:
        yield
        for task in tasks:
            assert not task.done(), task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def bad_times(client: Client, crew: Workers, env: dict[str, str], prometheus: Prometheus, redis_url: str) -> None:
    """A worker is killed, one frozen past its lease, one drains slowly; an agent fails; a message is none."""
    gates = Gates(env)
    (Path(env["TEST_GATES"]) / "f.fail").write_text("ValueError")
    with pytest.raises(JobFailed):
        await (await client.enqueue("fails", {"done": [], "until": 1}, thread_id="f")).result(timeout=30)
    with redis.Redis.from_url(redis_url) as connection:
        connection.zadd("threadline:queue", {b"\xff\xfe": 0})
    for thread, order in (("killed", signal.SIGKILL), ("frozen", signal.SIGSTOP), ("drained", signal.SIGTERM)):
        gates.close(thread, 0)
        job = await client.enqueue("steps", {"done": [], "until": 2}, thread_id=thread)
        pid = (await gates.begun(thread, 0)).pid
        victim = next(worker for worker in crew.started if worker.pid == pid)
        prometheus.watch(crew.start())
        if order != signal.SIGTERM:
            await asyncio.sleep(5)  # by the lease: V2 wants rescuers that are older than it
        victim.signal(order)
        if order != signal.SIGTERM:
            gates.open(thread, 0)
            await job.result(timeout=60)
        victim.signal(signal.SIGCONT) if order == signal.SIGSTOP else None
        if order == signal.SIGTERM:
            await until(partial(_ended, victim), "it has drained", limit=40)
            gates.open(thread, 0)
            await job.result(timeout=60)


def _ended(worker: WorkerHandle) -> bool:
    return worker.process.poll() is not None


async def test_every_panel_shows_something(
    client: Client, env: dict[str, str], prometheus: Prometheus, redis_url: str, tmp_path: Path
) -> None:
    Path(env["TEST_GATES"]).mkdir(parents=True, exist_ok=True)
    corpus = {"THREADLINE_CORPUS": str(DEPLOY.parent / "docs")}
    dashboard = script("dashboard")
    with receiving() as receiver, Workers({**env, **QUICK, **SENDING, **corpus}) as crew:
        began = time.time()
        for _ in range(2):
            prometheus.watch(crew.start())
        async with load(client, receiver.url("/told")):
            await asyncio.sleep(6)
            await bad_times(client, crew, env, prometheus, redis_url)
            deadline = time.monotonic() + PATIENCE
            while empty := _empty(dashboard, prometheus, began):
                assert time.monotonic() < deadline, f"no data: {empty}"
                await asyncio.sleep(2)
        assert "ThreadlineLeaseLost" in prometheus.alerts()
        if picture := os.environ.get("PICTURE"):
            Path(picture).write_text(_picture(dashboard, prometheus, began), encoding="utf-8")


def _empty(dashboard: Any, prometheus: Prometheus, began: float) -> list[str]:
    return [expression for _, expression in dashboard.expressions() if not prometheus.series(expression, began)]


def _picture(dashboard: Any, prometheus: Prometheus, began: float) -> str:
    picture = script("picture")
    ended = time.time()
    rows = {}
    for title, panels in dashboard.ROWS.items():
        rows[title] = [
            picture.Drawn(panel.title, panel.unit, _drawn(panel, prometheus, began, ended)) for panel in panels
        ]
    return str(picture.draw(rows, ended - began))


def _drawn(panel: Any, prometheus: Prometheus, began: float, ended: float) -> dict[str, list[tuple[float, float]]]:
    found = {}
    for expression, legend in panel.queries:
        for one in prometheus.series(expression, began, ended):
            name = legend
            for label, value in one["labels"].items():
                name = name.replace(f"{{{{{label}}}}}", value)
            found[name] = one["values"]
    return found
