"""Each word of the tables finds its own row, and what is not known is passed on as it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import errors
from redis import exceptions

from threadline.errors import BackendUnavailable
from threadline.ledger.database import refused
from threadline.redis_client import reason
from threadline.redis_client import refused as refused_by_redis
from threadline.refusals import POSTGRES, REDIS, Refusal, refusal_of_postgres, refusal_of_redis
from threadline_worker.rights import check_encoding, check_postgres


@pytest.mark.parametrize(("row", "words"), [(row, words) for row in POSTGRES for words in row.words])
def test_the_words_of_postgres_find_their_row(row: Refusal, words: str) -> None:
    assert refusal_of_postgres(f"FATAL:  {words.replace('…', 'x')}", None) is row


@pytest.mark.parametrize(("row", "words"), [(row, words) for row in REDIS for words in row.words])
def test_the_words_of_redis_find_their_row(row: Refusal, words: str) -> None:
    assert refusal_of_redis(words.replace("…", "x")) is row


def test_a_sqlstate_is_enough_in_any_language() -> None:
    told = refused(errors.DiskFull("konnte Datei nicht erweitern"))
    assert str(told).startswith("Postgres: konnte Datei nicht erweitern: free space")
    assert told.passing
    assert not refused(errors.InsufficientPrivilege("keine Berechtigung")).passing


def test_what_is_not_known_is_passed_on_and_waited_for() -> None:
    assert str(refused(psycopg.OperationalError("a riddle\nof two lines"))) == "Postgres: a riddle of two lines"
    assert refused(psycopg.OperationalError("a riddle")).passing
    assert reason(exceptions.ResponseError("a riddle")) == "a riddle"
    assert refused_by_redis(exceptions.ResponseError("a riddle")).passing


def test_no_argument_of_a_refused_command_is_told() -> None:
    """Servers and proxies that know no AUTH repeat it; /readyz, `doctor` and the CLI are not redacted."""
    unknown = exceptions.ResponseError("unknown command 'AUTH', with args beginning with: 'me' 'CANARY'")
    assert reason(unknown) == "unknown command 'AUTH'"
    assert "CANARY" not in str(refused_by_redis(unknown))


def test_an_error_of_ours_is_not_taken_for_one_of_redis() -> None:
    assert reason(BackendUnavailable("Postgres: Connection refused")) == "Postgres: Connection refused"


def fake(version: int, shown: str, encoding: str = "UTF8") -> Any:
    told = {"server_version": shown, "server_encoding": encoding}
    return SimpleNamespace(info=SimpleNamespace(server_version=version, parameter_status=told.get, dbname="db"))


async def test_a_postgres_that_is_too_old_is_told() -> None:
    queries: Any = None
    assert await check_postgres(fake(130_011, "13.11"), queries) == (
        "Postgres 13.11 is too old: use Postgres 14 or newer"
    )
    with pytest.raises(BackendUnavailable, match=r"Postgres 13\.11 is too old"):
        await check_encoding(fake(130_011, "13.11"))
    await check_encoding(fake(140_000, "14.0"))
