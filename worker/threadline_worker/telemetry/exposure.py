"""What a worker shows at its port: figures are read when they are asked for, and a taken default port is no end."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import structlog
from prometheus_client import GCCollector, PlatformCollector, ProcessCollector

from threadline.errors import BackendUnavailable
from threadline_worker.telemetry.http import HealthServer
from threadline_worker.telemetry.metrics import QueueGauges

if TYPE_CHECKING:
    from threadline_worker.execution import Services
    from threadline_worker.health import Health
    from threadline_worker.runs import Runs
    from threadline_worker.settings import WorkerSettings

__all__ = ["expose", "ledger_from"]

log = structlog.get_logger(__name__)

_DEFAULT_PORT = 9464
#: A scrape waits no longer for the ledger.
_LEDGER_SECONDS = 2.0


def expose(services: Services, runs: Runs, health: Health, drained_for: Callable[[], float]) -> HealthServer:
    """Answer /metrics, /healthz and /readyz until the server is stopped.

    `drained_for` gives the seconds since a drain began, 0 without one. Raises BackendUnavailable if a port that was set
    is taken; a taken default is replaced by a free one.
    """
    _fill(services, runs, health, drained_for)
    settings, registry = services.settings, services.metrics.registry
    server = _listen(settings, lambda port: _server(settings, port, registry, health))
    server.start()
    host = f"[{settings.metrics_host}]" if ":" in settings.metrics_host else settings.metrics_host
    log.info("worker.configuration", metrics=f"http://{host}:{server.port}/metrics")
    return server


def _fill(services: Services, runs: Runs, health: Health, drained_for: Callable[[], float]) -> None:
    metrics = services.metrics
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=metrics.registry)
    queues = dict.fromkeys((*services.settings.queues, *services.settings.client.queues.names))
    metrics.registry.register(QueueGauges(ledger_from(services, asyncio.get_running_loop()), queues=queues))
    metrics.worker_slots.set(runs.slots)
    metrics.worker_jobs_running.set_function(lambda: len(runs))
    metrics.drain_seconds.set_function(drained_for)
    for backend in ("redis", "postgres"):
        metrics.backend_up.labels(backend=backend).set_function(partial(health.answers, backend))
    for state in ("used", "idle"):
        metrics.pool_connections.labels(state=state).set_function(partial(_pool_figure, services, state))


def ledger_from(
    services: Services, loop: asyncio.AbstractEventLoop, *, limit: float = _LEDGER_SECONDS
) -> Callable[[], dict[str, Any]]:
    """What QueueGauges ask in a scrape's thread; none within `limit` seconds is none, and the question ends.

    Nothing that the ledger does hides this worker's own figures, which are in the same answer.
    """

    def ask() -> dict[str, Any]:
        asked = asyncio.run_coroutine_threadsafe(services.ledger.gauges(), loop)
        try:
            return dict(asked.result(limit))
        except (BackendUnavailable, psycopg.Error, TimeoutError, CancelledError):
            asked.cancel()  # or questions would pile up at a slow ledger, each with a connection
            return {}

    return ask


def _pool_figure(services: Services, state: str) -> float:
    stats = services.checkpoints.get_stats()
    idle = stats.get("pool_available", 0)
    return float(idle if state == "idle" else stats.get("pool_size", 0) - idle)


def _listen(settings: WorkerSettings, on: Callable[[int], HealthServer]) -> HealthServer:
    wanted = _DEFAULT_PORT if settings.metrics_port is None else settings.metrics_port
    try:
        return on(wanted)
    except OSError as error:
        if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
            raise BackendUnavailable(
                f"THREADLINE_METRICS_HOST={settings.metrics_host} cannot be listened on ({error.strerror}): use an"
                " address of this machine, or 0.0.0.0 (with IPv6 ::) for all of them"
            ) from error
        if settings.metrics_port is not None:
            raise BackendUnavailable(
                f"THREADLINE_METRICS_PORT={wanted} cannot be listened on ({error.strerror}): choose another, or 0"
            ) from error
        server = on(0)
        log.warning("worker.configuration", problem=f"port {wanted} is taken", using=server.port)
        return server


def _server(settings: WorkerSettings, port: int, registry: Any, health: Health) -> HealthServer:
    return HealthServer(settings.metrics_host, port, registry, health.unhealthy, health.unready)
