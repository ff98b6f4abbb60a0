"""What servers say when they refuse, what it means and what to do, so that no message ends in a riddle.

The tables of docs/troubleshooting.md are made from these. What a server says in another language than English is passed
on as it is; what psycopg gives a SQLSTATE is known by that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["POSTGRES", "REDIS", "Refusal", "refusal_of_postgres", "refusal_of_redis", "said_by"]

#: The arguments of a command that a server or a proxy does not know are the password, if it is AUTH or HELLO.
_ARGUMENTS: Final = re.compile(r",? with args beginning with:.*", re.DOTALL)


class Refusal(NamedTuple):
    """`words` are the server's (`…` stands for anything); one is enough, or the SQLSTATE begins with one of `states`.

    `passing`: it may end by itself, so that a worker at its start waits for it. Otherwise somebody has to mend it.
    """

    words: tuple[str, ...]
    means: str
    do: str
    states: tuple[str, ...] = ()
    passing: bool = False


#: The first one that fits counts.
POSTGRES: Final = (
    Refusal(
        (
            "password authentication failed",
            "no password supplied",
            'role "…" does not exist',
            "not permitted to log in",
        ),
        "the user is unknown, may not log in, or the password is wrong",
        "correct user and password in DATABASE_URL, special characters as %XX",
        ("28P01",),
    ),
    Refusal(
        ("no pg_hba.conf entry", "pg_hba.conf rejects connection"),
        "the server lets nobody in from here: not this user, this database, this address, or not without TLS",
        "add `sslmode=require` to DATABASE_URL if the server wants TLS, else allow it in pg_hba.conf",
        ("28000",),
    ),
    Refusal(
        ('database "…" does not exist',),
        "the server is there, this database is not",
        "create it (`createdb`), or correct the last part of DATABASE_URL",
        ("3D000",),
    ),
    Refusal(
        ("server does not support SSL",),
        "the URL wants TLS, the server has none",
        "switch TLS on at the server, or set `sslmode=disable` in DATABASE_URL on a network that you trust",
    ),
    Refusal(
        ("does not match host name",),
        "the certificate is another server's, or names it differently",
        "use a name that is in the certificate as the host in DATABASE_URL",
    ),
    Refusal(
        ("root certificate file",),
        "the file with the authority's certificate is not there",
        "name it in DATABASE_URL: `sslrootcert=FILE`, or `sslrootcert=system` for the machine's own",
    ),
    Refusal(
        ("certificate verify failed",),
        "nobody here trusts the authority that signed the server's certificate",
        "name the authority's certificate in DATABASE_URL: `sslrootcert=FILE`",
    ),
    Refusal(
        ("permission denied", "must be owner of", "must be superuser", "User does not have CONNECT privilege"),
        "this role lacks a right: another part's role, or grants from before the last migration",
        "apply deploy/postgres/grants.sql after each migration, or put the role of this part into DATABASE_URL",
        ("42501",),
    ),
    Refusal(
        ("read-only transaction", "during recovery", "is a read-only replica"),
        "this server takes no writes: a standby, an old primary, or one whose disk is full",
        "point DATABASE_URL at the primary; nothing is lost meanwhile",
        ("25006",),
    ),
    Refusal(
        ("No space left on device", "could not extend file", "could not write to file", "Disk quota exceeded"),
        "the server's disk is full",
        "free space on it; running jobs wait, and go on by themselves",
        ("53100", "58030"),
        passing=True,
    ),
    Refusal(
        ("too many clients already", "remaining connection slots", "too many connections for"),
        "the server has no connection left for this user",
        "raise max_connections, lower THREADLINE_CONCURRENCY, run fewer workers, or use PgBouncer",
        ("53300",),
        passing=True,
    ),
    Refusal(
        ("the database system is", "not currently accepting connections", "terminating connection due to"),
        "the server starts, stops or recovers",
        "wait for it; its log says how far it is",
        ("57P",),
        passing=True,
    ),
    Refusal(
        ("failed to resolve host", "could not translate host name", "Name or service not known"),
        "no server has this name, or the DNS does not answer",
        "correct the host in DATABASE_URL",
        passing=True,
    ),
    Refusal(
        ("Connection refused",),
        "no server listens at this host and port",
        "start Postgres, or correct host and port in DATABASE_URL",
        passing=True,
    ),
    Refusal(
        ("connection timeout expired", "timeout expired", "server closed the connection unexpectedly"),
        "what listens there does not answer as Postgres does: a firewall, another program, or a proxy that wants TLS",
        "correct host and port in DATABASE_URL, and add `sslmode=require` if the server wants TLS",
        passing=True,
    ),
)

REDIS: Final = (
    Refusal(
        ("invalid username-password", "invalid password", "WRONGPASS", "without any password configured"),
        "the user is unknown or off, or the password is wrong",
        "correct user and password in REDIS_URL, special characters as %XX",
    ),
    Refusal(
        ("Authentication required", "NOAUTH"),
        "the server wants a password, the URL has none",
        "put user and password into REDIS_URL, as `USER:PASSWORD@` before the host",
    ),
    Refusal(
        ("no permissions", "NOPERM", "can't access at least one of the keys"),
        "this user lacks a right to a command, a key or a channel",
        "give it the rights of deploy/redis/users.acl, or put the user of this part into REDIS_URL",
    ),
    Refusal(
        ("read only replica", "READONLY"),
        "this server is a replica, which takes no writes",
        "point REDIS_URL at the primary, or at the Sentinels that know it",
    ),
    Refusal(
        ("used memory > 'maxmemory'", "OOM command not allowed"),
        "the memory that Redis may use is full",
        "raise `maxmemory`, or shorten THREADLINE_EVENT_TTL_SECONDS; running jobs go on without it",
        passing=True,
    ),
    Refusal(
        ("MISCONF", "unable to persist to disk", "Errors writing to the AOF file"),
        "Redis cannot write to its disk, and takes no writes until it can",
        "free space on its disk, and see its log; running jobs go on without it",
        passing=True,
    ),
    Refusal(
        ("loading the dataset", "LOADING"),
        "the server reads its data after a start",
        "wait for it",
        passing=True,
    ),
    Refusal(
        ("Not enough good replicas", "NOREPLICAS"),
        "`min-replicas-to-write` is not met: replicas are away",
        "bring them back; until then Redis takes no writes",
        passing=True,
    ),
    Refusal(
        ("max number of clients reached",),
        "the server has no connection left",
        "raise `maxclients`, or run fewer workers",
        passing=True,
    ),
    Refusal(
        ("DB index is out of range", "invalid DB index"),
        "the server has no database of this number",
        "correct the number at the end of REDIS_URL; most servers have 0 to 15",
    ),
    Refusal(
        ("in cluster mode", "is a Redis Cluster", "MOVED", "CROSSSLOT", "CLUSTERDOWN"),
        "a Redis Cluster is not supported: one transaction writes several keys",
        "use one primary with replicas and Sentinel (docs/operations.md)",
    ),
    Refusal(
        ("protected mode",),
        "a server without a password answers its own machine only",
        "give the server a password (`requirepass`, or users), and put it into REDIS_URL",
    ),
    Refusal(
        ("certificate is not valid for", "Hostname mismatch"),
        "the certificate is another server's, or names it differently",
        "use a name that is in the certificate as the host in REDIS_URL",
    ),
    Refusal(
        ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed"),
        "nobody here trusts the authority that signed the server's certificate",
        "name the authority's certificate in REDIS_URL: `ssl_ca_certs=FILE`",
    ),
    Refusal(
        ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"),
        "the URL wants TLS (rediss://), the server has none",
        "use redis:// on a network that you trust, or switch TLS on at the server",
    ),
    Refusal(
        ("Name or service not known", "Temporary failure in name resolution", "nodename nor servname"),
        "no server has this name, or the DNS does not answer",
        "correct the host in REDIS_URL",
        passing=True,
    ),
    Refusal(
        ("Connection refused", "Connect call failed"),
        "no server listens at this host and port",
        "start Redis, or correct host and port in REDIS_URL",
        passing=True,
    ),
    Refusal(
        ("Timeout connecting to server", "Connection closed by server", "Connection reset by peer"),
        "what listens there does not answer as Redis does: a firewall, another program, or TLS on one side only",
        "correct host and port in REDIS_URL; rediss:// where the server speaks TLS, redis:// where it does not",
        passing=True,
    ),
)


def said_by(error: BaseException) -> str:
    """A server's words as one line, without its DETAIL and CONTEXT, which quote rows; "" if it said nothing."""
    primary = getattr(getattr(error, "diag", None), "message_primary", None)  # psycopg's, which not everybody installs
    return " ".join(_ARGUMENTS.sub("", primary or str(error)).split())


def refusal_of_postgres(text: str, state: str | None) -> Refusal | None:
    """What Postgres' (or libpq's) message means; None: not known."""
    by_state = (known for known in POSTGRES if state and state.startswith(known.states or ("?",)))
    return next(by_state, None) or _by_words(POSTGRES, text)


def refusal_of_redis(text: str) -> Refusal | None:
    """What a message of Redis or redis-py means; None: not known."""
    return _by_words(REDIS, text)


def _by_words(table: Iterable[Refusal], text: str) -> Refusal | None:
    return next((known for known in table if any(_says(words, text) for words in known.words)), None)


def _says(words: str, text: str) -> bool:
    return re.search(".*".join(map(re.escape, words.split("…"))), text, re.IGNORECASE) is not None
