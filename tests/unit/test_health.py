"""/healthz, /readyz: each red light says why, and the tap closes for what concerns claims."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import urllib.error
import urllib.request
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from threadline_worker.health import Health
from threadline_worker.liveness import Liveness
from threadline_worker.refusals import Refusals
from threadline_worker.runs import Runs
from threadline_worker.telemetry import http
from threadline_worker.telemetry.http import HealthServer


def liveness(**now: Any) -> Liveness:
    made = Liveness(
        "postgresql://x",
        None,  # type: ignore[arg-type]  # asks nothing here
        "w",
        heartbeat=1,
        lease=15,
        loop_stall=300,
        channel="threadline",
        runs=dict,
        on_beat=lambda _beat: None,
        on_notice=lambda: None,
    )
    made._last_beat = time.monotonic()
    for name, value in now.items():
        setattr(made, name, value)
    return made


def health(*, draining: bool = False, redis: float = 0, postgres: float = 0, stall: float = 300, **now: Any) -> Health:
    ended = asyncio.Event()
    if draining:
        ended.set()
    at = time.monotonic()
    quiet = dict.fromkeys(("redis_trouble", "postgres_trouble", "postgres_refuses"), "")
    sweep: Any = SimpleNamespace(redis_ok_at=at - redis, postgres_ok_at=at - postgres, **quiet)
    return Health(Runs(1), liveness(**now), sweep, Refusals(), ended, loop_stall=stall)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"draining": True}, "draining"),
        ({"_last_beat": time.monotonic() - 1000}, "last beat is older than the lease"),
        ({"skew": 5.1}, "this clock is 5.1 s off"),
        ({"skew": -60.0}, "this clock is -60.0 s off"),
        ({"in_recovery": True}, "read-only replica"),
    ],
)
def test_F4_F5_P3_what_forbids_a_claim_is_said(found, why) -> None:
    red = health(**found)
    assert not red.may_claim()
    assert [reason for reason in red.unready() if why in reason] == red.unready()
    assert red.unhealthy() == []


def test_a_server_away_is_not_ready_but_no_reason_to_restart() -> None:
    red = health(redis=6, postgres=6)
    assert red.unready() == ["Redis does not answer", "Postgres does not answer"]
    assert red.unhealthy() == []
    assert red.may_claim()
    assert health(redis=4, postgres=4).unready() == []


def test_F4_five_seconds_are_allowed() -> None:
    assert health(skew=4.9).may_claim()


def test_V4_healthz_is_red_well_before_the_process_ends_itself() -> None:
    assert "event loop" in health(_last_tick=time.monotonic() - 31).unhealthy()[0]
    assert health(_last_tick=time.monotonic() - 29).unhealthy() == []
    assert "event loop" in health(_last_tick=time.monotonic() - 2, stall=3).unhealthy()[0]


def test_a_heartbeat_thread_that_stands_still_is_no_life() -> None:
    assert "heartbeat" in health(_last_round=time.monotonic() - 17).unhealthy()[0]


def test_each_answer_is_whole() -> None:
    """wsgiref writes into the list of headers: a shared one kept the first answer's length."""
    reasons: list[str] = []
    server = HealthServer("127.0.0.1", 0, CollectorRegistry(), lambda: reasons, lambda: ["a long reason " * 20])
    server.start()
    try:
        assert ask(server, "healthz") == (200, {"ok": True, "reasons": []})
        reasons.append("a reason that was not there before")
        assert ask(server, "healthz") == (503, {"ok": False, "reasons": reasons})
        assert ask(server, "readyz") == (503, {"ok": False, "reasons": ["a long reason " * 20]})
        assert ask(server, "else") == (404, {"paths": ["/metrics", "/healthz", "/readyz"]})
    finally:
        server.stop()


@pytest.mark.skipif(not socket.has_ipv6, reason="a Python without IPv6")
def test_a_host_may_be_an_ipv6_address() -> None:
    server = HealthServer("::", 0, CollectorRegistry(), list, list)
    server.start()
    try:
        assert ask(server, "healthz") == (200, {"ok": True, "reasons": []})
    finally:
        server.stop()


def test_no_name_is_looked_up_for_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DNS that does not answer would hold the event loop at the start for longer than a lease."""

    def ask_dns(name: str = "") -> str:
        raise AssertionError(name)

    monkeypatch.setattr(socket, "getfqdn", ask_dns)
    HealthServer("127.0.0.1", 0, CollectorRegistry(), list, list)._server.server_close()


def test_a_connection_that_says_nothing_holds_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http._Quiet, "timeout", 0.05)
    server = HealthServer("127.0.0.1", 0, CollectorRegistry(), list, list)
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as silent:
            assert silent.recv(1) == b""  # it hangs up
    finally:
        server.stop()


def ask(server: HealthServer, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/{path}") as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
