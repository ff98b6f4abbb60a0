"""Slots are never exceeded; why a run stops is decided once; a suspect runs beside no other one."""

from __future__ import annotations

from typing import Any

from threadline.ledger.custody import Claim
from threadline_worker.outcome import Cancelled, Lost, Released
from threadline_worker.runs import Run, Runs


def claim_of(job_id: str = "j", *, stalls: int = 0, epoch: int = 1) -> Claim:
    given: dict[str, Any] = dict.fromkeys(Claim._fields)
    return Claim(**{**given, "job_id": job_id, "epoch": epoch, "row": {"stalls": stalls}})


def test_claims_under_way_count_as_taken() -> None:
    runs = Runs(2)
    runs.add(Run(claim_of("a")))
    with runs.reserve("b"):
        assert runs.free == 0
        assert runs.claiming("b")
        runs.freed.clear()
    assert runs.freed.is_set()
    assert (runs.free, runs.claiming("b"), runs.epochs()) == (1, False, {"a": 1})


def test_an_ended_run_leaves_a_newer_run_of_its_job_alone() -> None:
    runs = Runs(2)
    old, new = Run(claim_of()), Run(claim_of(epoch=3))
    runs.add(old)
    runs.add(new)
    runs.remove(old)
    assert runs.get("j") is new
    runs.remove(new)
    assert len(runs) == 0


def test_the_first_reason_to_stop_counts_but_a_lost_lease_wins() -> None:
    run = Run(claim_of())
    run.drain()
    assert run.stopping == Released()
    assert not run.stopped.is_set()  # at the next super-step
    run.cancel("replaced", rollback=False)
    assert run.stopping == Cancelled("replaced")
    assert not run.stopped.is_set()
    run.cancel("requested", rollback=True)
    assert run.stopping == Cancelled("requested", rollback=True)
    assert run.stopped.is_set()
    run.cut()
    assert run.stopping == Cancelled("requested", rollback=True)
    run.lose()
    run.cancel("requested", rollback=False)
    assert run.stopping == Lost()


def test_L7_suspects_run_apart() -> None:
    def beside(*running: int, progressed: bool = False) -> list[bool]:
        runs = Runs(9)
        for number, stalls in enumerate(running):
            run = Run(claim_of(str(number), stalls=stalls))
            run.progressed = progressed
            runs.add(run)
        return [runs.bears(stalls) for stalls in range(3)]

    assert beside() == [True, True, True]
    assert beside(0, 0) == [True, True, True]
    assert beside(1, 1) == [True, True, False]  # after one crash all go on at once
    assert beside(2) == [True, False, False]
    assert beside(0, 2, progressed=True) == [True, True, True]
