"""No call of any client shows, changes or follows what is another user's, whatever the ids look like.

The table of calls is compared with the classes: a call that is new has to be put into it. What agents remember is
tested in tests/unit/memory (names, paths, routes).
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import click
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.desk import LedgerView
from support.ledger import bench_on, cloned
from threadline import Client, InvalidJob, JobNotFound, NotWaiting, ThreadOwnedByAnother, client, sync
from threadline.cli.app import cli
from threadline.cli.catalogue import COMMANDS
from threadline.contract.user_names import UserNames
from threadline.job import Job
from threadline_worker.embedded import ServerUrls
from threadline_worker.memory import user_namespace

OWNER = "Ann@Example.org"
OWNED = "t.ann-1"
NOTHING: tuple[type[Exception], ...] = (ThreadOwnedByAnother, JobNotFound, NotWaiting, InvalidJob)


class Belongings(NamedTuple):
    """Of the owner: a thread that waits for a person, and its job; a thread with a queued job."""

    thread: str
    waiting: str
    queued: str


def _gone(events: Any) -> list[Any]:
    """The first event, if any comes."""
    try:
        return [next(events)]
    finally:
        events.close()


#: Every call that takes a user, as `user` would make it on what is the owner's.
CALLS: dict[str, Callable[[sync.Client, Belongings, str], Any]] = {
    "enqueue": lambda c, its, user: c.enqueue("steps", {"a": 1}, thread_id=its.thread, user_id=user),
    "enqueue interrupt": lambda c, its, user: c.enqueue(
        "steps", {"a": 1}, thread_id=its.thread, user_id=user, on_busy="rollback"
    ),
    "job": lambda c, its, user: c.job(its.waiting, user_id=user),
    "jobs": lambda c, its, user: c.jobs(user_id=user) + c.jobs(thread_id=its.thread, user_id=user),
    "retry": lambda c, its, user: c.retry(its.queued, user_id=user),
    "resume": lambda c, its, user: c.resume(its.thread, 1, user_id=user),
    "inbox": lambda c, its, user: c.inbox(user_id=user) + c.inbox(thread_id=its.thread, user_id=user),
    "state": lambda c, its, user: c.state(its.thread, user_id=user, timeout=0.3),
    "history": lambda c, its, user: c.history(its.thread, user_id=user, timeout=0.3),
    "fork": lambda c, its, user: c.fork(its.thread, user_id=user, timeout=0.3),
    "fork onto": lambda c, its, user: c.fork(its.thread, new_thread_id=f"{its.thread}.", user_id=user, timeout=0.3),
    "update_state": lambda c, its, user: c.update_state(its.thread, {"a": 1}, user_id=user, timeout=0.3),
    "redeliver": lambda c, its, user: c.redeliver(its.queued, user_id=user),
    "thread_events": lambda c, its, user: _gone(c.thread_events(its.thread, user_id=user)),
    "Job.events": lambda c, its, user: _gone(sync.Job(c, its.queued, its.thread, user).events()),
    "Job.status": lambda c, its, user: sync.Job(c, its.queued, its.thread, user).status(),
    "Job.cancel": lambda c, its, user: sync.Job(c, its.queued, its.thread, user).cancel(rollback=True),
    "Job.result": lambda c, its, user: sync.Job(c, its.queued, its.thread, user).result(timeout=0.3),
}
#: For operators, who are trusted with everybody's; and what makes, opens and closes.
OTHERS = {"prune", "delete_user", "from_env", "aclose", "close"}
#: What a Job asks its client for: tested through Job.
OF_JOBS = {"snapshot", "cancel", "events", "has_ledger", "has_redis"}


def test_every_call_is_in_the_table() -> None:
    for kind in (client.Client, sync.Client):
        named = {name for name in vars(kind) if not name.startswith("_")}
        assert named - OTHERS - OF_JOBS - {"keys"} == {name.split()[0] for name in CALLS if "." not in name}
    assert {name for name in vars(Job) if not name.startswith("_")} == {
        name.removeprefix("Job.") for name in CALLS if name.startswith("Job.")
    }


def test_every_command_on_a_job_or_thread_acts_as_a_user() -> None:
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        given_ = {parameter.name for parameter in command.params}
        if given_ & {"job_id", "thread_id"}:
            assert "user_id" in given_, name


@pytest.fixture(scope="module")
def house(servers: ServerUrls, template: str) -> Iterator[tuple[str, str]]:
    with cloned(servers, template) as url:
        yield f"{servers.redis_url.rsplit('/', 1)[0]}/0", url


@pytest.fixture(scope="module")
def its(house: tuple[str, str]) -> Belongings:
    async def live() -> Belongings:
        async with bench_on(house[1]) as bench:
            waiting = await bench.enqueue(thread_id=OWNED, user_id=OWNER)
            await bench.end(waiting.job_id, "interrupted")
            queued = await bench.enqueue(thread_id=f"{OWNED}-2", user_id=OWNER)
            await bench.sql("DELETE FROM threadline.workers")
        return Belongings(OWNED, waiting.job_id, queued.job_id)

    return asyncio.run(live())


def _alike(owner: str) -> list[str]:
    """Ids that a reader, a file system, a URL or a database could take for the owner's."""
    forms = [unicodedata.normalize(form, owner) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    return [
        *(form for form in forms if form != owner),
        owner.lower(), owner.upper(), f"{owner} ", f" {owner}", f"{owner}\n", f"{owner}\u200b", f"\ufeff{owner}",
        owner.replace("A", "\u0410"), owner.replace("e", "\u0435"), owner.replace("@", "\uff20"),
        quote(owner), quote(quote(owner)), owner.replace("@", "%40"), f"../{owner}", f"{owner}/..", f"./{owner}",
        owner[:-1], owner + owner[-1], "default", "%", "_", "*", "'", f"{owner}' OR '1'='1", "null", "None",
    ]  # fmt: skip


intruders = st.sampled_from(_alike(OWNER)) | st.text(min_size=1, max_size=40).filter(lambda user: user != OWNER)


def test_no_user_reaches_what_is_anothers(house: tuple[str, str], its: Belongings) -> None:
    view = LedgerView(house[1])
    before = view.dump("threads", "jobs", "cancel_requests")
    with sync.Client(redis_url=house[0], database_url=house[1]) as calls:

        @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
        @given(user=intruders, name=st.sampled_from(sorted(CALLS)))
        @example(user=OWNER.lower(), name="jobs")
        def attempt(user: str, name: str) -> None:
            try:
                answer = CALLS[name](calls, its, user)
            except NOTHING:
                return
            assert answer == [], name

        attempt()
        for name in CALLS:  # each at least once
            attempt.hypothesis.inner_test("nobody", name)  # type: ignore[attr-defined]  # what @given wraps
    assert view.dump("threads", "jobs", "cancel_requests") == before


async def test_a_positions_job_of_another_thread_is_refused(house: tuple[str, str], its: Belongings) -> None:
    async with Client(redis_url=house[0], database_url=house[1]) as mine:
        job = await mine.enqueue("steps", {"a": 1}, user_id="mallory")
        events = mine.thread_events(job.thread_id, user_id="mallory", after=f"{its.waiting}/1-1")
        with pytest.raises(JobNotFound):
            await anext(events)
        with pytest.raises(ThreadOwnedByAnother):
            await mine.fork(job.thread_id, new_thread_id=its.thread, user_id="mallory")
        # A key of another user's is no key of mine.
        again = await mine.enqueue("steps", {"a": 1}, user_id="mallory", idempotency_key="k")
        assert again.job_id != (await mine.enqueue("steps", {"a": 2}, user_id=OWNER, idempotency_key="k")).job_id
        await mine.delete_user("mallory")


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "JOB"],
        ["watch", "JOB", "--json"],
        ["watch", "--thread", "THREAD", "--json"],
        ["result", "JOB"],
        ["cancel", "JOB", "--rollback"],
        ["retry", "JOB"],
        ["retry", "JOB", "--webhook"],
        ["resume", "THREAD", "--approve"],
        ["history", "THREAD"],
        ["state", "THREAD"],
        ["fork", "THREAD"],
        ["update-state", "THREAD", "{}"],
        ["enqueue", "steps", "{}", "--input-json", "--thread", "THREAD"],
    ],
)
def test_the_command_line_refuses(
    arguments: list[str],
    house: tuple[str, str],
    its: Belongings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from threadline.cli.app import run

    monkeypatch.setenv("REDIS_URL", house[0])
    monkeypatch.setenv("DATABASE_URL", house[1])
    named = [{"JOB": its.waiting, "THREAD": its.thread}.get(argument, argument) for argument in arguments]
    with pytest.raises(SystemExit) as ended:
        run([*named, "--user", OWNER.lower()])
    said = capsys.readouterr()
    assert ended.value.code == 2, said
    assert "belongs to another user" in said.err
    assert said.out == ""


@given(user=intruders, labels=st.lists(st.sampled_from(["a", "..", "%2e%2e", "\uff0e\uff0e", "x.y"]), min_size=1))
@settings(max_examples=100)
def test_namespaces_of_two_users_never_meet(user: str, labels: list[str]) -> None:
    first, *others = labels
    mine = user_namespace(first, *others, user_id=user)
    assert mine[1] != UserNames().name(OWNER)
    assert mine != user_namespace(first, *others, user_id=OWNER)
