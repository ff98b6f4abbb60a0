"""The eight invariants of a chaos run, each judged from evidence that the faulty processes cannot fake."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from support.chaos_load import Accepted
from support.chaos_records import Custody, Effect, Evidence, Written
from threadline.contract.events import Event

__all__ = ["Away", "Judged", "Outage", "judge", "pickups"]

_ENDED = {"succeeded", "failed", "cancelled", "interrupted"}
#: What a machine with other work adds to the bound of a pick-up.
_SLACK_SECONDS = 3.0
#: After so long a sweep looks for a message that nobody took (L4), and some rounds more.
_LOST_SECONDS = 15.0
_NO_MEMORY = ("MemoryError", "RuntimeError: can't start new thread")


class Outage(NamedTuple):
    """A fault as the pick-up bound sees it: seconds since the epoch."""

    begin: float
    end: float


class Away(NamedTuple):
    """A worker that could do nothing for so long (true time); `until` is infinite where it was killed."""

    pid: int
    since: float
    until: float


class Judged(NamedTuple):
    """Violations by the invariant's number, and what was counted on the way."""

    violations: list[str]
    gaps: int
    wasted: int
    lost_with_redis: int
    pickup_seconds: list[float]


def judge(
    evidence: Evidence,
    accepted: Sequence[Accepted],
    states: dict[str, list[str]],
    undisturbed: dict[int, list[str]],
    *,
    away: Sequence[Away],
    asked: dict[str, list[str]],
    outages: Sequence[Outage],
    lease: float,
    redis_lost: bool,
) -> Judged:
    """`states`: thread → `done` at its head; `undisturbed`: rounds → the entries of such a job without its tag.

    `away`: workers that were killed, stopped or cut off; `asked`: thread → ids of its head's questions.
    """
    lost = [one for one in accepted if one.carried and one.job.job_id not in evidence.jobs and redis_lost]
    kept = [one for one in accepted if one not in lost]
    waits = list(pickups(evidence, away))
    late = [
        f"(7) job {job_id} was picked up after {seconds:.1f} s"
        for job_id, at, seconds in waits
        if seconds > lease + 2 + _SLACK_SECONDS + _overlap(outages, at, at + seconds)
    ]
    violations = [
        *_one_end(evidence, kept),
        *_charges(evidence),
        *_no_committed_step_again(evidence),
        *_forks(evidence),
        *_begun_too_early(evidence),
        *_final_states(evidence, kept, states, undisturbed),
        *_questions(evidence, kept, asked),
        *_hostile(evidence, redis_lost=redis_lost),
        *_stale_writes(evidence),
        *_overlaps(evidence),
        *itertools.chain.from_iterable(_log(one, evidence) for one in kept),
        *late,
        *_forgotten(evidence, outages, lease),
    ]
    gaps = sum(event.type == "gap" for one in kept for event in one.events)
    return Judged(violations, gaps, len(_zombies(evidence)), len(lost), [seconds for _, _, seconds in waits])


# Invariant 1.


def _one_end(evidence: Evidence, accepted: Sequence[Accepted]) -> Iterator[str]:
    known = {one.job.job_id: one for one in accepted}
    for one in accepted:
        if one.job.job_id not in evidence.jobs:
            yield f"(1) job {one.job.job_id} ({one.tag}) was accepted and is in no ledger"
    for job_id, row in evidence.jobs.items():
        changes = [change for change in evidence.transitions if change.job_id == job_id]
        # A question that is taken back is no second end.
        ends = sum(change.to_state in _ENDED and change.from_state != "interrupted" for change in changes)
        retries = sum(change.transition == "retry" for change in changes)
        if row["state"] not in _ENDED or ends != 1 + retries:
            yield f"(1) job {job_id} is {row['state']} after {ends} ends and {retries} retries"
        elif (why := _unexpected(row["state"], row["code"], known.get(job_id))) is not None:
            yield f"(1) job {job_id} ended {row['state']}/{row['code']}: {why}; {row['message']}"


def _unexpected(state: str, code: str | None, one: Accepted | None) -> str | None:
    match state:
        case "succeeded":
            return "its every attempt kills the worker" if one is not None and (one.poison or one.asks) else None
        case "interrupted" if one is not None and one.asks:
            return None
        case "cancelled" if code == "replaced" or one is None or one.cancels:
            return None
        case "failed" if code == "poisoned" and one is not None and one.poison:
            return None
        case "failed" if code == "transient" and one is not None and one.poison == "memory":
            return None  # the worker had enough left to refuse it, three times
    return "nobody asked for that"


def _charges(evidence: Evidence) -> Iterator[str]:
    """No node of these graphs ever fails, so a failure that was charged is a death, a drain or an outage.

    Except where there is no memory: who is told so may be charged, and goes on.
    """
    charged: dict[str, int] = {}
    for change in evidence.transitions:
        more, charged[change.job_id] = change.failures > charged.get(change.job_id, 0), change.failures
        if change.transition == "release" and more and not (change.message or "").startswith(_NO_MEMORY):
            yield f"(1) job {change.job_id} was charged a failure: {change.code}"


# Invariant 2.


def _no_committed_step_again(evidence: Evidence) -> Iterator[str]:
    commits: dict[tuple[str, str, int | None, str | None], list[Written]] = defaultdict(list)
    deleted: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for one in evidence.written:
        if one.what == "checkpoints" and one.op == "DELETE":
            deleted[one.thread_id, one.ns, one.checkpoint_id].append(one.at)
        elif one.what == "checkpoints":
            commits[one.thread_id, one.ns, one.step, one.job_id].append(one)
    for effect in evidence.effects:
        if _holder(evidence, effect) is None:
            continue  # a zombie's waste
        for commit in commits[effect.thread, effect.ns, effect.step, effect.job]:
            gone = deleted[commit.thread_id, commit.ns, commit.checkpoint_id]
            if commit.at < effect.begin and not any(commit.at < at < effect.begin for at in gone):
                yield (
                    f"(2) {effect.thread} job {effect.job}: {effect.node} of super-step {effect.step} {effect.ns} ran"
                    f" again {effect.begin - commit.at:.3f} s after its commit, in pid {effect.pid}"
                )


def _forks(evidence: Evidence) -> Iterator[str]:
    chains: dict[tuple[str, str], list[dict[str, object]]] = defaultdict(list)
    for row in evidence.checkpoints:
        chains[row["thread_id"], row["checkpoint_ns"]].append(row)
    for (thread, ns), rows in chains.items():
        parents = [row["parent_checkpoint_id"] for row in rows]
        ids = [row["checkpoint_id"] for row in rows]
        # A subgraph's first checkpoint names a parent of its own namespace or none.
        for before, parent in zip([None, *ids], parents, strict=False):
            if parent != before:
                yield f"(2) {thread} {ns!r}: a checkpoint goes on from {parent}, not from {before}: the thread forked"


def _begun_too_early(evidence: Evidence) -> Iterator[str]:
    """R1: a step begins once the one before it is durable; what a crash leaves is never further behind than that."""
    durable: dict[tuple[str, str, int | None, str | None], float] = {}
    for one in evidence.written:
        if one.what == "checkpoints" and one.op != "DELETE":
            durable.setdefault((one.thread_id, one.ns, one.step, one.job_id), one.at)
    for effect in evidence.effects:
        at = durable.get((effect.thread, effect.ns, effect.step - 1, effect.job))
        if at is None:  # an answer goes on from its question's head
            at = durable.get((effect.thread, effect.ns, effect.step - 1, evidence.jobs[effect.job]["resumes"]))
        if at is None or at > effect.begin:
            yield f"(2) {effect.thread} job {effect.job}: {effect.node} began before step {effect.step - 1} was durable"


# Invariant 3.


def _final_states(
    evidence: Evidence, accepted: Sequence[Accepted], states: dict[str, list[str]], undisturbed: dict[int, list[str]]
) -> Iterator[str]:
    tags = {one.job.job_id: one for one in accepted}
    threads: dict[str, list[Accepted]] = defaultdict(list)
    # In the order of enqueue; an answer has the place of its question (O2).
    for job_id in sorted(evidence.jobs, key=lambda one: (evidence.jobs[one]["turn"], evidence.jobs[one]["seq"])):
        if job_id in tags:
            threads[evidence.jobs[job_id]["thread_id"]].append(tags[job_id])
    for thread, jobs in threads.items():
        done = states.get(thread, [])
        expected = [entry for one in jobs for entry in _expected(evidence, one, done, undisturbed)]
        if done != expected:
            yield f"(3) {thread} ends with {_difference(done, expected)}"
        for one in jobs:
            row = evidence.jobs[one.job.job_id]
            asked = [f"{one.tag} {entry}" for entry in undisturbed[one.rounds]] if one.answer else []
            wanted = asked + _all_of(one, undisturbed)
            if row["state"] == "succeeded" and _own(row["result"]["done"], one.tag) != wanted:
                yield f"(3) the result of job {one.job.job_id} is {_own(row['result']['done'], one.tag)}"


def _expected(evidence: Evidence, one: Accepted, done: list[str], undisturbed: dict[int, list[str]]) -> list[str]:
    """What the job must have left behind: all of it, nothing, or (stopped on request) its first whole super-steps."""
    whole = _all_of(one, undisturbed)
    row = evidence.jobs[one.job.job_id]
    if row["state"] in {"succeeded", "interrupted"}:
        return whole
    if evidence.cancels.get(one.job.job_id):
        return []
    count = sum(entry in whole for entry in done)
    # left and right are one super-step.
    return whole[: count - 1 if whole[count - 1 : count] and " left " in whole[count - 1] else count]


def _all_of(one: Accepted, undisturbed: dict[int, list[str]]) -> list[str]:
    if one.answer:
        return [f"{one.tag} ask {one.answer}"]
    return [f"{one.tag} {entry}" for entry in undisturbed[one.rounds]]


def _own(done: Iterable[str], tag: str) -> list[str]:
    return [entry for entry in done if entry.startswith(f"{tag} ")]


def _difference(done: list[str], expected: list[str]) -> str:
    for number, (found, wanted) in enumerate(itertools.zip_longest(done, expected)):
        if found != wanted:
            return f"{found!r} instead of {wanted!r} at {number} of {len(done)} (expected {len(expected)})"
    return "nothing wrong"


def _questions(evidence: Evidence, accepted: Sequence[Accepted], asked: dict[str, list[str]]) -> Iterator[str]:
    """Who waits for a person asks what the undisturbed run asks, and the thread's head waits for that answer."""
    for one in accepted:
        row = evidence.jobs.get(one.job.job_id)
        if row is None or row["state"] != "interrupted":
            continue
        prompts = row["interrupts"] or []
        if [prompt["value"] for prompt in prompts] != [{"from": one.tag}]:
            yield f"(3) job {one.job.job_id} asks {prompts}"
        if not row["answered_by"] and [prompt["id"] for prompt in prompts] != asked.get(row["thread_id"], []):
            yield f"(3) job {one.job.job_id} asks {prompts}, its thread waits for {asked.get(row['thread_id'])}"


def _hostile(evidence: Evidence, *, redis_lost: bool) -> Iterator[str]:
    """What can never become a job is set aside with its reason, not retried and not lost (unless Redis lost it)."""
    aside = [row["message_id"] for row in evidence.dead_letters if row["reason"]]
    for name in evidence.hostile:
        # A carried job's message is named after it, and some more.
        if not redis_lost and not any(one.startswith(name) for one in aside):
            yield f"(1) the hostile message {name} was not set aside"


# Invariant 4.


def _stale_writes(evidence: Evidence) -> Iterator[str]:
    restores = {one.xid for one in evidence.written if one.op == "RESTORED"}
    for one in evidence.written:
        if one.op in {"DELETE", "RESTORED"} or one.xid in restores:
            continue
        theirs = one.what == "checkpoints" and one.job_id != one.owner_job
        if one.writer != f"threadline:{one.owner}" or theirs:
            yield (
                f"(4) {one.writer} wrote {one.what} {one.thread_id} {one.ns!r} step {one.step} of job {one.job_id}"
                f" while the thread was with {one.owner} ({one.owner_job} at epoch {one.owner_epoch})"
            )


# Invariant 5.


def _overlaps(evidence: Evidence) -> Iterator[str]:
    threads: dict[str, list[Custody]] = defaultdict(list)
    for custody in evidence.custodies:
        threads[custody.thread_id].append(custody)
    for thread, custodies in threads.items():
        custodies.sort(key=lambda custody: custody.begin)
        for before, after in itertools.pairwise(custodies):
            if before.end is None or before.end > after.begin:
                yield f"(5) {thread}: jobs {before.job_id} and {after.job_id} were both running"
    for effect in evidence.effects:
        yield from _out_of_hands(evidence, effect)


def _out_of_hands(evidence: Evidence, effect: Effect) -> Iterator[str]:
    custody = _holder(evidence, effect)
    if custody is None:
        had = evidence.of.get((effect.job, effect.pid), ())
        if not any(custody.begin < effect.begin for custody in had):
            yield f"(5) {effect.node} of job {effect.job} ran in pid {effect.pid}, which never had the job"
    elif custody.ended_by in {"finish", "release"} and (effect.end or 0) > (custody.end or 0):
        yield f"(5) {effect.node} of job {effect.job} went on after its worker had given the job out of its hands"


def _holder(evidence: Evidence, effect: Effect) -> Custody | None:
    for custody in evidence.of.get((effect.job, effect.pid), ()):
        if custody.begin <= effect.begin and (custody.end is None or effect.begin <= custody.end):
            return custody
    return None


def _zombies(evidence: Evidence) -> list[Effect]:
    return [effect for effect in evidence.effects if _holder(evidence, effect) is None]


# Invariant 6.


def _log(one: Accepted, evidence: Evidence) -> Iterator[str]:
    if not one.told_all:
        yield f"(6) the subscriber of job {one.job.job_id} never saw an end; it has {_ids(one.events)[-5:]}"
    last: Event | None = None
    marked = False
    for event in one.events:
        if event.type == "gap":
            marked = True
            continue
        if last is not None and not _later(last, event):
            yield f"(6) job {one.job.job_id}: {event.id} came after {last.id}"
        if not marked and not _follows(last, event):
            yield f"(6) job {one.job.job_id}: a hole between {last and last.id} and {event.id} that no gap marks"
        last, marked = event, False
    row = evidence.jobs.get(one.job.job_id)
    if one.told_all and last is not None and row is not None and last.type != row["state"]:
        yield f"(6) job {one.job.job_id} is {row['state']}, its subscriber was told {last.type} ({last.id})"


def _later(last: Event, event: Event) -> bool:
    return last.position is not None and event.position is not None and last.position < event.position


def _follows(last: Event | None, event: Event) -> bool:
    position = event.position
    assert position is not None
    if last is None or last.position is None:
        return position.n == 1 and position.epoch <= 1
    if position.epoch == last.position.epoch:
        return position.n == last.position.n + 1
    return position.n == 1 and event.prev == last.id


def _ids(events: Iterable[Event]) -> list[str]:
    return [event.id or "gap" for event in events]


# Invariant 7.


def pickups(evidence: Evidence, away: Sequence[Away]) -> Iterator[tuple[str, float, float]]:
    """Job, time of the kill or stop, seconds until another worker had it; for jobs that were left running by that."""
    for pid, since, until in away:
        for custody in evidence.custodies:
            if custody.pid != pid or custody.ended_by != "rescue":
                continue
            following = [c.begin for c in evidence.custodies if c.job_id == custody.job_id and c.begin > custody.begin]
            if following and custody.begin <= since <= (custody.end or 0) <= until:
                yield custody.job_id, since, min(following) - since


def _forgotten(evidence: Evidence, outages: Sequence[Outage], lease: float) -> Iterator[str]:
    """Jobs whose turn it was and that nobody took, although there were workers: a lost message is repeated (L4)."""
    ready: dict[str, float] = {}
    free: dict[str, float] = {}
    for change in evidence.transitions:
        if change.transition == "claim":
            since = max(ready.get(change.job_id, change.at), free.get(change.thread_id, 0.0))
            waited = change.at - since
            if waited > _LOST_SECONDS + lease + _SLACK_SECONDS + _union(outages, since, change.at):
                yield f"(7) job {change.job_id} of {change.thread_id} was the next for {waited:.1f} s, taken by nobody"
        elif change.to_state == "queued":
            ready[change.job_id] = change.at
        if change.to_state in _ENDED - {"interrupted"}:
            free[change.thread_id] = change.at


def _union(outages: Sequence[Outage], begin: float, end: float) -> float:
    """Seconds between two moments in which at least one fault was on."""
    seconds, at = 0.0, begin
    for outage in sorted(outages):
        seconds += max(0.0, min(end, outage.end) - max(at, outage.begin))
        at = max(at, min(end, outage.end))
    return seconds


def _overlap(outages: Sequence[Outage], begin: float, end: float) -> float:
    """Seconds of other faults between two moments; what overlaps counts each time, for its end needs time, too."""
    return sum(max(0.0, min(end, outage.end) - max(begin, outage.begin)) for outage in outages)
