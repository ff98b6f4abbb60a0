"""What Postgres refuses to everybody is tried ever more seldom and charged to nobody; one job's own has an end."""

from __future__ import annotations

from threadline_worker.checkpoints import CheckpointsAway, CheckpointsRefused
from threadline_worker.outcome import Released, Retriable
from threadline_worker.refusals import REFUSED_SECONDS, Refusals

MEMORY = CheckpointsRefused("out of memory", of_all=False)
DISK = CheckpointsRefused("no space", of_all=True)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def pause(refusals: Refusals, clock: Clock) -> float:
    """Until it ends."""
    began = clock.now
    while refusals.why():
        clock.now += REFUSED_SECONDS / 2
    return clock.now - began


def test_while_nothing_can_be_written_the_pauses_grow_and_nobody_is_charged() -> None:
    refusals = Refusals(clock := Clock())
    pauses = []
    for number in range(6):
        for job in ("a", "b"):  # both ran when the disk was full
            assert isinstance(refusals.given_back(job, MEMORY if number % 2 else DISK), Released)
        pauses.append(pause(refusals, clock) / REFUSED_SECONDS)
    assert pauses == [1, 2, 4, 8, 8, 8]
    refusals.wrote("a")
    refusals.given_back("b", DISK)
    assert pause(refusals, clock) == REFUSED_SECONDS


def test_L7_a_job_is_charged_for_what_others_could_do_meanwhile() -> None:
    refusals = Refusals(Clock())
    assert isinstance(refusals.given_back("a", MEMORY), Released)
    refusals.wrote("b")
    assert isinstance(refusals.given_back("a", MEMORY), Retriable)
    assert isinstance(refusals.given_back("a", MEMORY), Released)  # nobody has written since
    refusals.wrote("b")
    refusals.wrote("a")  # it goes on
    assert isinstance(refusals.given_back("a", MEMORY), Released)


def test_a_full_disk_is_nobodys_fault_though_small_writes_pass() -> None:
    refusals = Refusals(Clock())
    for _ in range(5):
        assert isinstance(refusals.given_back("a", DISK), Released)
        refusals.wrote("b")


def test_a_server_that_is_away_closes_no_tap_here() -> None:
    refusals = Refusals(Clock())
    assert isinstance(refusals.given_back("a", CheckpointsAway("no answer")), Released)
    assert not refusals.why()
