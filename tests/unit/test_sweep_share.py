"""Of a large fleet some sweep, whatever its size; of a small one all do; everybody watches for signs of life."""

from __future__ import annotations

from typing import Any
from unittest.mock import AsyncMock, MagicMock, create_autospec

import pytest
from arq.connections import ArqRedis

from threadline.contract.keys import Keys
from threadline.ledger.database import Database
from threadline_worker.adoption import Adoption
from threadline_worker.consumer import Consumer
from threadline_worker.rescue import Rescuer
from threadline_worker.runs import Runs
from threadline_worker.sweep import Sweep


def sweep_among(others: int) -> Sweep:
    rescuer = create_autospec(Rescuer, instance=True)
    rescuer.others = others
    services: Any = None
    return Sweep(services, create_autospec(Database, instance=True), rescuer, create_autospec(Adoption, instance=True))


@pytest.mark.parametrize("others", [0, 1, 3])
def test_of_a_few_workers_each_sweeps_in_every_round(others: int) -> None:
    sweep = sweep_among(others)
    assert all(sweep.chosen() for _ in range(1_000))


def test_of_two_hundred_workers_about_four_sweep_in_a_round() -> None:
    sweep = sweep_among(199)
    assert 200 < sum(sweep.chosen() for _ in range(20_000)) < 700


async def test_a_round_of_who_is_not_chosen_looks_for_the_dead_and_does_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    async def step(_sweep: Sweep, one: Any) -> bool:
        done.append(one.__name__)
        return True

    monkeypatch.setattr(Sweep, "_step", step)
    sweep = sweep_among(10**9)
    await sweep._round()
    assert done == ["_rescue"]
    sweep.call()  # somebody has said that there is something to do
    await sweep._round()
    assert {"_restore", "_adopt", "_dispatch"} < set(done)
    done.clear()
    await sweep._round()
    assert "_dispatch" not in done


async def test_V2_who_rescues_a_job_sends_it_on_in_the_same_round(monkeypatch: pytest.MonkeyPatch) -> None:
    rescued = {"job_id": "j", "thread_id": "t", "agent": "a", "epoch": 2, "state": "queued", "kind": "job"}
    done: list[str] = []

    async def step(_sweep: Sweep, one: Any) -> bool:
        done.append(one.__name__)
        if one.__name__ == "_rescue":
            await one()
        return True

    monkeypatch.setattr(Sweep, "_step", step)
    sweep = sweep_among(10**9)
    sweep._services = MagicMock(announcer=AsyncMock())
    sweep._connection, sweep._direct.limit = MagicMock(closed=False), 60
    sweep._rescuer.look.side_effect = [[{**rescued, "previous_worker": "w", "stalls": 1}], []]
    await sweep._round()
    assert "_dispatch" in done
    done.clear()
    await sweep._round()
    assert done == ["_rescue"]


@pytest.mark.parametrize(
    ("fleet", "data", "least", "most"),
    [
        (1, b"1", 1_000, 1_000),
        (16, b"1", 1_000, 1_000),
        (1_600, b"1", 1, 40),
        (1_600, b"100", 1_000, 1_000),
        (1_600, b"?", 1_000, 1_000),
        (1_600, b"0", 1_000, 1_000),
        (1_600, b"9" * 5_000, 1_000, 1_000),
    ],
)
async def test_of_a_large_fleet_a_message_wakes_some_and_many_messages_wake_all(
    fleet: int, data: bytes, least: int, most: int
) -> None:
    nothing: Any = None
    consumer = Consumer(
        create_autospec(ArqRedis, instance=True),
        Keys(),
        Runs(1),
        handler=nothing,
        dead_letter=nothing,
        may_claim=lambda: True,
        on_control=nothing,
        on_purged=nothing,
        fleet=lambda: fleet,
    )
    assert least <= sum(consumer._woken(data) for _ in range(1_000)) <= most
