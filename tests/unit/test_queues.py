"""Which queue a job goes into is decided by rules that are checked at once, and a rule is no part of the request."""

from __future__ import annotations

import pytest

from support.ledger import request
from threadline import Client, ConfigurationError, InvalidJob, testing
from threadline.contract.keys import Keys
from threadline.contract.queues import QueueMap, parse_queue_map, parse_queues
from threadline.settings import ClientSettings
from threadline_worker.settings import WorkerSettings

SERVERS = {"REDIS_URL": "redis://localhost", "DATABASE_URL": "postgresql://localhost/x"}


def test_a_users_rule_comes_before_its_agents() -> None:
    rules = parse_queue_map("research=deep, coder=deep,user:42=vip,user:a=b@c=odd")
    assert rules.queue_of("research", "42") == "vip"
    assert rules.queue_of("research", "7") == "deep"
    assert rules.queue_of("chat", "7") is None
    assert rules.queue_of("42", "a=b@c") == "odd"
    assert rules.names == ("deep", "vip", "odd", "default")
    assert parse_queue_map("") == QueueMap()
    assert QueueMap().names == ("default",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("research", "THREADLINE_QUEUES: 'research' is no rule: write agent=queue"),
        ("research=", "queue '' of research: use 1-40 of a-z, 0-9, _ and -"),
        ("research=Deep", "queue 'Deep' of research"),
        (f"research={'x' * 41}", "of research: use 1-40"),
        ("=deep", "queue rule '': name an agent, or user:ID"),
        ("user:=deep", "queue rule 'user:': name an agent, or user:ID"),
        ("a=b,a=c", "THREADLINE_QUEUES: a has two rules: leave one"),
    ],
)
def test_a_malformed_map_says_which_rule_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        ClientSettings.from_env({**SERVERS, "THREADLINE_QUEUES": text})


def test_a_worker_serves_what_it_is_told_or_else_its_map() -> None:
    mapped = {**SERVERS, "THREADLINE_QUEUES": "research=deep"}
    assert WorkerSettings.from_env(SERVERS).queues == ("default",)
    assert WorkerSettings.from_env(mapped).queues == ("deep", "default")
    assert WorkerSettings.from_env({**mapped, "THREADLINE_WORKER_QUEUES": "vip, vip"}).queues == ("vip",)
    told = {**mapped, "THREADLINE_WORKER_QUEUES": "vip"}
    assert WorkerSettings.from_env(told, queues=("a", "b")).queues == ("a", "b")
    with pytest.raises(ConfigurationError, match="THREADLINE_WORKER_QUEUES: queue 'No way'"):
        parse_queues("No way")
    with pytest.raises(ConfigurationError, match="--queue: queue 'A'"):
        WorkerSettings.from_env(SERVERS, queues=("A",))


def test_the_default_queues_keys_are_as_they_were_and_no_other_meets_them() -> None:
    keys = Keys("staging")
    assert (keys.queue_of("default"), keys.wake_of("default")) == ("staging:queue", "staging:wake")
    assert (keys.queue_of("deep"), keys.wake_of("deep")) == ("staging:queue:{deep}", "staging:wake:{deep}")
    assert keys.queue_of("health-check") != f"{keys.queue}:health-check"  # arq's


def test_a_rule_is_no_part_of_the_request_and_a_named_queue_is() -> None:
    plain = request()
    same = {"job_id": plain.job_id, "thread_id": plain.thread_id}
    assert request(**same, routed="deep").fingerprint() == plain.fingerprint()
    assert request(**same, queue="deep").fingerprint() != plain.fingerprint()
    assert request(**same, routed="deep").options()["queue"] == "deep"
    assert request(**same, queue="vip", routed="deep").options()["queue"] == "vip"
    assert "queue" not in plain.options()
    for name in ("queue", "routed"):
        with pytest.raises(InvalidJob, match="queue 'No way': use 1-40 of a-z, 0-9, _ and -"):
            request(**{name: "No way"})


async def test_the_testing_client_has_the_map_too() -> None:
    client = testing.Client(queues={"steps": "deep", "user:42": "vip"})
    made = [await client.enqueue("steps", "a", **who) for who in ({}, {"user_id": "42"}, {"queue": "odd"})]
    assert [(await job.status()).queue for job in made] == ["deep", "vip", "odd"]
    with testing.SyncClient(queues={"steps": "deep"}) as blocking:
        assert blocking.enqueue("steps", "a").status().queue == "deep"


async def test_a_malformed_map_is_refused_by_every_client() -> None:
    for make in (
        lambda: Client(redis_url="redis://localhost", queues={"a": "B"}),
        lambda: testing.Client(queues={"a": "B"}),
    ):
        with pytest.raises(ConfigurationError, match="queue 'B' of a"):
            make()
