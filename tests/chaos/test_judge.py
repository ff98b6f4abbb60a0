"""The judge of the chaos runs is not blind: true evidence passes, and each way to spoil it is a violation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.chaos_invariants import Away, Outage, judge
from support.chaos_load import Accepted
from support.chaos_records import Evidence
from support.chaos_run import _heads, _undisturbed, arena
from support.gates import until

Spoil = Callable[[Evidence, list[Accepted], dict[str, list[str]]], None]


def unended(evidence: Evidence, *_: Any) -> None:
    next(iter(evidence.jobs.values()))["state"] = "running"


def vanished(evidence: Evidence, *_: Any) -> None:
    evidence.jobs.popitem()


def ended_twice(evidence: Evidence, *_: Any) -> None:
    evidence.transitions.append(next(change for change in evidence.transitions if change.to_state == "succeeded"))


def failed_unasked(evidence: Evidence, *_: Any) -> None:
    next(iter(evidence.jobs.values())).update(state="failed", code="error")


def charged(evidence: Evidence, *_: Any) -> None:
    evidence.transitions.append(evidence.transitions[0]._replace(transition="release", failures=1))


def ran_again(evidence: Evidence, *_: Any) -> None:
    custody = evidence.custodies[0]
    first = next(effect for effect in evidence.effects if effect.job == custody.job_id)
    assert custody.end is not None
    evidence.effects.append(first._replace(begin=custody.end - 0.001, end=custody.end - 0.001))


def forked(evidence: Evidence, *_: Any) -> None:
    evidence.checkpoints[3]["parent_checkpoint_id"] = evidence.checkpoints[1]["checkpoint_id"]


def began_too_early(evidence: Evidence, *_: Any) -> None:
    effect = next(effect for effect in evidence.effects if effect.step == 2)
    evidence.effects[evidence.effects.index(effect)] = effect._replace(begin=evidence.effects[0].begin - 1)


def step_lost(_evidence: Evidence, _accepted: list[Accepted], states: dict[str, list[str]]) -> None:
    del states["t"][2]


def step_twice(_evidence: Evidence, _accepted: list[Accepted], states: dict[str, list[str]]) -> None:
    states["t"].append(states["t"][-1])


def stale_write(evidence: Evidence, *_: Any) -> None:
    evidence.written[5] = evidence.written[5]._replace(writer="threadline:somebody-1-else")


def foreign_write(evidence: Evidence, *_: Any) -> None:
    number = next(n for n, one in enumerate(evidence.written) if one.what == "checkpoints")
    evidence.written[number] = evidence.written[number]._replace(owner_job="another")


def overlap(evidence: Evidence, *_: Any) -> None:
    before, after = evidence.custodies[:2]
    evidence.custodies[0] = before._replace(end=after.begin + 1)


def went_on(evidence: Evidence, *_: Any) -> None:
    last = evidence.effects[-1]
    evidence.effects[-1] = last._replace(end=(last.end or 0) + 60)


def never_had_it(evidence: Evidence, *_: Any) -> None:
    evidence.effects.append(evidence.effects[0]._replace(pid=1))


def hole(_evidence: Evidence, accepted: list[Accepted], *_: Any) -> None:
    del accepted[0].events[3]


def twice(_evidence: Evidence, accepted: list[Accepted], *_: Any) -> None:
    accepted[0].events.insert(3, accepted[0].events[3])


def no_end(_evidence: Evidence, accepted: list[Accepted], *_: Any) -> None:
    accepted[0].told_all = False


def wrong_end(_evidence: Evidence, accepted: list[Accepted], *_: Any) -> None:
    accepted[0].events.pop()


def asked_twice(evidence: Evidence, *_: Any) -> None:
    row = next(row for row in evidence.jobs.values() if row["state"] == "interrupted")
    row["interrupts"] = row["interrupts"] * 2


def asked_in_vain(evidence: Evidence, *_: Any) -> None:
    row = next(row for row in evidence.jobs.values() if row["state"] == "interrupted")
    row["interrupts"][0]["id"] = "another"


def not_set_aside(evidence: Evidence, *_: Any) -> None:
    evidence.hostile.append("hostile-1")


def forgotten(evidence: Evidence, *_: Any) -> None:
    number = next(n for n, change in enumerate(evidence.transitions) if change.transition == "claim")
    late = evidence.transitions[number]._replace(at=evidence.transitions[number].at + 60)
    evidence.transitions[number] = late


SPOILS: dict[str, list[Spoil]] = {
    "(1)": [unended, vanished, ended_twice, failed_unasked, charged, not_set_aside],
    "(2)": [ran_again, forked, began_too_early],
    "(3)": [step_lost, step_twice, asked_twice, asked_in_vain],
    "(4)": [stale_write, foreign_write],
    "(5)": [overlap, went_on, never_had_it],
    "(7)": [forgotten],
    "(6)": [hole, twice, no_end, wrong_end],
}


async def test_each_way_to_spoil_the_evidence_is_noticed(tmp_path: Path) -> None:
    async with arena(1, workers=1, folder=tmp_path) as made:
        for _ in range(3):
            await made.load.enqueue("t", rounds=1)
        await made.load.enqueue("u", rounds=1, asks=True)
        await until(lambda: not made.load.open, "all have ended")
        evidence, accepted = made.evidence(), list(made.load.accepted.values())
        states, asked = _heads(made.control.urls.database_url, evidence)
    undisturbed = {1: await _undisturbed(1)}

    def violations(spoil: Spoil | None, away: list[Away], outages: list[Outage]) -> list[str]:
        jobs = [copy.copy(one) for one in accepted]
        for one in jobs:
            one.events = list(one.events)
        mine = (copy.deepcopy(evidence), jobs, copy.deepcopy(states))
        if spoil is not None:
            spoil(*mine)
        return judge(*mine, undisturbed, away=away, asked=asked, outages=outages, lease=2, redis_lost=False).violations

    assert violations(None, [], []) == []
    for number, spoils in SPOILS.items():
        for spoil in spoils:
            found = violations(spoil, [], [])
            assert any(violation.startswith(number) for violation in found), (spoil.__name__, found)

    def picked_up_late(spoiled: Evidence, *_: Any) -> None:
        first = spoiled.custodies[0]
        assert first.end is not None
        spoiled.custodies[0] = first._replace(ended_by="rescue")
        spoiled.custodies.append(first._replace(begin=first.end + 60, end=first.end + 61))

    killed = [Away(evidence.custodies[0].pid, evidence.custodies[0].begin + 0.01, float("inf"))]
    assert [one for one in violations(picked_up_late, killed, []) if one.startswith("(7)")]
    outage = Outage(evidence.custodies[0].begin, evidence.custodies[0].begin + 61)
    assert not [one for one in violations(picked_up_late, killed, [outage]) if one.startswith("(7)")]
