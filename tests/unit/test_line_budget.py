"""What a job may log is bounded, ours always passes, and what lasts is said again once a minute only."""

from __future__ import annotations

import logging
import threading

import structlog

from support.log_lines import log_lines
from threadline_worker.telemetry.line_budget import LineBudget, LineGate

ours, theirs = structlog.get_logger("threadline_worker.x"), logging.getLogger("agent")


def test_a_job_s_lines_are_counted_and_ours_pass() -> None:
    with log_lines() as lines:
        with LineBudget(3).of_this_job():
            for number in range(10):
                theirs.info("line %d", number)
            ours.info("job.finished")
        (*_, last) = lines.entries
        assert [entry["event"] for entry in lines.entries[:-1]] == ["line 0", "line 1", "line 2", "job.finished"]
    assert (last["event"], last["lines"], last["repeated_lines"]) == ("log.suppressed", 7, 0)


def test_long_lines_use_a_budget_up_sooner() -> None:
    with log_lines(content=True) as lines, LineBudget(20).of_this_job():
        for _ in range(20):
            theirs.info("x" * 6000)
    assert [entry["event"][:3] for entry in lines.entries] == ["xxx"] * 4 + ["log"]


def test_jobs_have_budgets_of_their_own_in_threads_too() -> None:
    import contextvars

    def job(name: str) -> None:
        with LineBudget(2).of_this_job():
            context = contextvars.copy_context()
            tool = threading.Thread(target=context.run, args=(lambda: [theirs.info(name) for _ in range(3)],))
            tool.start()
            tool.join()

    with log_lines() as lines:
        contextvars.copy_context().run(job, "a")
        contextvars.copy_context().run(job, "b")
    told = [(entry["event"], entry.get("lines")) for entry in lines.entries]
    assert told == [("a", None), ("a", None), ("log.suppressed", 1), ("b", None), ("b", None), ("log.suppressed", 1)]


def test_a_job_that_stays_within_its_budget_says_nothing_of_it() -> None:
    with log_lines() as lines, LineBudget(2).of_this_job():
        theirs.info("one")
        theirs.info("two")
    assert len(lines.entries) == 2


def test_no_lines_at_all() -> None:
    with log_lines() as lines, LineBudget(0).of_this_job():
        theirs.info("one")
    assert [entry["event"] for entry in lines.entries] == ["log.suppressed"]


def test_a_condition_that_lasts_is_said_twenty_times_and_then_once_a_minute() -> None:
    moment = [0.0]
    gate = LineGate(lambda: moment[0])
    admitted = []
    for second in range(3600):
        moment[0] = float(second)
        admitted.append(gate.admits("beat.failed"))
    passed = [answer for answer in admitted if answer is not None]
    assert 70 <= len(passed) <= 82
    assert passed[:20] == [0] * 20
    assert max(passed) == 59
    assert gate.left_out == 3600 - len(passed)
    assert gate.admits("another") == 0


def test_conditions_are_forgotten_before_there_are_too_many() -> None:
    gate = LineGate(lambda: 0.0)
    for number in range(100_000):
        gate.admits(number)
    assert len(gate._left) == 500


def test_our_own_lines_that_repeat_are_bounded_with_and_without_a_job() -> None:
    with log_lines() as lines:
        for step in ("rescue", "restore"):
            for _ in range(100):
                ours.warning("sweep.failed", step=step)
        with LineBudget(1000).of_this_job():
            for _ in range(100):
                ours.warning("publish.failed")
            ours.warning("publish.failed", exc_info=ValueError("another story"))
        for _ in range(100):
            logging.getLogger("psycopg.pool").warning("error connecting in %r: %s", "pool", "away")
    names = [entry["event"] for entry in lines.entries]
    assert [names.count(name) for name in ("sweep.failed", "publish.failed")] == [40, 21]
    assert sum(name.startswith("error connecting") for name in names) == 20
    suppressed = next(entry for entry in lines.entries if entry["event"] == "log.suppressed")
    assert (suppressed["lines"], suppressed["repeated_lines"]) == (0, 80)


def test_what_was_left_out_is_said_by_the_next_line_that_passes() -> None:
    record = logging.LogRecord("psycopg", logging.WARNING, "f", 1, "away", (), None)
    from threadline_worker.telemetry.line_budget import spent_by_this_job

    moment = [0.0]
    gate = LineGate(lambda: moment[0])
    for _ in range(25):
        spent_by_this_job(record, gate)
    moment[0] = 61.0
    assert spent_by_this_job(record, gate) is None
    assert record.repeated == 5  # type: ignore[attr-defined]
