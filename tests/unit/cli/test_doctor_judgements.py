"""What the doctor makes of what it sees."""

from __future__ import annotations

import asyncio

import pytest

from threadline.cli.doctor.check import Check, Level, verdict
from threadline.cli.doctor.database import judge_ledger, judge_server, judge_skew, judge_webhooks, judge_workers
from threadline.cli.doctor.redis import judge_info
from threadline.cli.doctor.surroundings import check_agents, check_settings

GOOD = {
    "redis_version": "7.2.4",
    "role": "master",
    "aof_enabled": 1,
    "maxmemory_policy": "noeviction",
    "maxmemory": 0,
}


def levels(checks):
    return {check.name: str(check.level) for check in checks}


@pytest.mark.parametrize(
    ("info", "save", "name", "level"),
    [
        ({}, "", "redis version", "ok"),
        ({"redis_version": "6.2.0"}, "", "redis version", "ok"),
        ({"redis_version": "6.0.16"}, "", "redis version", "fail"),
        ({"redis_version": "5.0.7"}, "", "redis version", "fail"),
        ({"redis_version": "10.0.0"}, "", "redis version", "ok"),
        ({"role": "slave"}, "", "redis role", "fail"),
        ({}, "", "redis persistence", "ok"),
        ({"aof_enabled": 0}, "", "redis persistence", "warn"),
        ({"aof_enabled": 0}, "3600 1", "redis persistence", "warn"),
        ({"aof_enabled": 0}, None, "redis persistence", "info"),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 100 << 20}, "", "redis eviction", "fail"),
        ({"maxmemory_policy": "volatile-ttl", "maxmemory": 100 << 20}, "", "redis eviction", "fail"),
        ({"maxmemory_policy": "allkeys-lru"}, "", "redis eviction", "warn"),
    ],
)
def test_redis(info, save, name, level):
    assert levels(judge_info({**GOOD, **info}, save))[name] == level


@pytest.mark.parametrize(
    ("row", "level"),
    [
        ({}, {"postgres version": "ok", "postgres role": "ok"}),
        ({"version_number": 130_011}, {"postgres version": "fail", "postgres role": "ok"}),
        ({"in_recovery": True}, {"postgres version": "ok", "postgres role": "fail"}),
        ({"read_only": True}, {"postgres version": "ok", "postgres role": "fail"}),
        ({"read_only": True, "observing": True}, {"postgres version": "ok", "postgres role": "ok"}),
        ({"in_recovery": True, "observing": True}, {"postgres version": "ok", "postgres role": "fail"}),
    ],
)
def test_postgres(row, level):
    good = {"version": "14.2", "version_number": 140_002, "in_recovery": False, "read_only": False, "observing": False}
    assert levels(judge_server({**good, **row})) == level


@pytest.mark.parametrize(("skew", "level"), [(0.2, "ok"), (-1.5, "warn"), (5.1, "fail"), (-60, "fail")])
def test_clock(skew, level):
    assert judge_skew(skew, 0.01).level == level


def worker(**more):
    good = {
        "worker_id": "w",
        "agents": ["research"],
        "beat_age": 0.5,
        "draining": False,
        "lock_ok": True,
        "alive": True,
    }
    return {**good, **more}


def test_workers():
    assert levels(judge_workers([])) == {"workers": "warn"}
    assert "1 silent" in judge_workers([worker(alive=False)])[0].seen
    assert levels(judge_workers([worker()])) == {"workers": "ok"}
    assert levels(judge_workers([worker(lock_ok=False)])) == {"workers": "ok", "worker locks": "warn"}


def test_ledger():
    empty = {"dead_letters": 0, "last_reason": None, "due": 0, "oldest_job": None}
    assert levels(judge_ledger(empty)) == {"dead letters": "ok", "queue": "ok"}
    waiting = {**empty, "due": 2, "oldest_job": "j", "oldest_agent": "a", "oldest_seconds": 90.0, "dead_letters": 1}
    assert levels(judge_ledger(waiting)) == {"dead letters": "warn", "queue": "warn"}


def test_verdict():
    fail = Check("a", Level.FAIL, "")
    away = Check("b", Level.FAIL, "", unavailable=True)
    unset = Check("c", Level.WARN, "", unavailable=True)
    assert [verdict(checks) for checks in ([], [unset], [fail, unset], [fail, away])] == [0, 0, 1, 4]


def test_settings():
    assert levels(check_settings({"THREADLINE_ENQUEUE_KEYS": "a:b"})) == {"variables": "ok", "enqueue keys": "ok"}
    assert levels(check_settings({"THREADLINE_X": "1"})) == {"variables": "warn", "enqueue keys": "info"}


class Point:
    name = "worker"

    def __init__(self, found):
        self.found = found

    def load(self):
        if isinstance(self.found, ModuleNotFoundError):
            raise self.found
        return self

    def __call__(self):
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.mark.parametrize(
    ("found", "level", "seen"),
    [
        ([("agents", "fail", "x cannot be imported", "mend it")], "fail", "x cannot be imported"),
        (ValueError("boom"), "fail", "ValueError: boom"),
        (ModuleNotFoundError("no", name="langgraph"), "info", "langgraph is missing"),
    ],
)
def test_agents_are_asked_of_the_worker_half(monkeypatch, found, level, seen):
    monkeypatch.setattr("threadline.cli.doctor.surroundings.entry_points", lambda **_: [Point(found)])
    (check,) = check_agents()
    assert check.level == level
    assert seen in check.seen


def test_a_check_may_run_a_loop_of_its_own(threadline, monkeypatch):
    async def found():
        return [("agents", "ok", "all load", "")]

    class Point:
        name = "worker"

        def load(self):
            return lambda: asyncio.run(found())

    monkeypatch.setattr("threadline.cli.doctor.surroundings.entry_points", lambda **_: [Point()])
    assert "all load" in threadline("doctor").out


def test_without_any_server_it_still_says_what_to_do(threadline):
    ended = threadline("doctor")
    assert ended.code == 4
    assert "REDIS_URL is not set" in ended.out
    assert "DATABASE_URL is not set" in ended.out


def test_a_malformed_setting_is_a_finding(threadline, monkeypatch):
    monkeypatch.setenv("THREADLINE_NAMESPACE", "No Good")
    ended = threadline("doctor", "--json")
    assert ended.code == 1
    assert '"level":"fail"' in ended.out
    assert "THREADLINE_NAMESPACE" in ended.out


@pytest.mark.parametrize(
    ("row", "level", "seen"),
    [
        ({}, "ok", "none waits"),
        ({"open": 3}, "ok", "3 reports on their way"),
        ({"open": 3, "held": 2, "failed": 1}, "warn", "2 reports wait, and no worker that looked at them has a secret"),
        ({"failed": 1}, "warn", "1 reports were given up within a day"),
    ],
)
def test_webhooks(row, level, seen):
    check = judge_webhooks({"open": 0, "held": 0, "failed": 0, **row})
    assert str(check.level) == level
    assert check.seen.startswith(seen)
    assert bool(check.advice) == (level == "warn")
