"""All that two servers store, as bytes, and where in it a word stands in any of the forms that it may hide in."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
import redis
from psycopg import sql

__all__ = ["Found", "found_in", "postgres_dump", "redis_dump"]


class Found(NamedTuple):
    """A place, as `table` or as a Redis key, and the form in which the word stands there."""

    place: str
    form: str


def postgres_dump(url: str) -> Iterator[tuple[str, bytes]]:
    """Every table of every schema of ours, row by row as COPY gives it: in binary, so that nothing is escaped."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, table in tables:
            for form in ("(FORMAT binary)", "(FORMAT text)"):
                query = sql.SQL("COPY {} TO STDOUT " + form).format(sql.Identifier(schema, table))
                with connection.cursor() as cursor, cursor.copy(query) as copy:
                    for row in copy:
                        yield table, bytes(row)


def redis_dump(url: str) -> Iterator[tuple[str, bytes]]:
    """Every key with all that is in it."""
    with redis.Redis.from_url(url) as connection:
        for key in connection.scan_iter(count=1_000):
            yield key.decode("latin-1"), key
            for part in _parts(connection, key):
                yield key.decode("latin-1"), part


def _parts(connection: Any, key: bytes) -> Iterator[bytes]:
    match connection.type(key):
        case b"string":
            yield connection.get(key)
        case b"stream":
            for _entry, fields in connection.xrange(key):
                yield from fields.values()
        case b"zset":
            yield from connection.zrange(key, 0, -1)
        case b"hash":
            yield from connection.hgetall(key).values()
        case b"set":
            yield from connection.smembers(key)
        case b"list":
            yield from connection.lrange(key, 0, -1)
        case kind:
            raise AssertionError(f"{key!r} is a {kind!r}, which the test does not look into")


def found_in(dump: Iterator[tuple[str, bytes]], word: str) -> set[Found]:
    """Where the word stands, plain or in a form that needs no key."""
    forms = dict(_forms(word))
    found = set()
    for place, content in dump:
        for layer, text in _layers(content):
            found |= {Found(place, layer + form) for form, needle in forms.items() if needle in text}
    return found


def _forms(word: str) -> Iterator[tuple[str, bytes]]:
    plain = word.encode()
    yield "plain", plain
    yield "utf-16", word.encode("utf-16-le")
    yield "reversed", plain[::-1]
    yield "hex", plain.hex().encode()
    yield "HEX", plain.hex().upper().encode()
    for shift in range(3):
        # In the middle of other text, base64 of a word has three forms; its ends depend on the neighbours.
        encoded = base64.b64encode(b"\0" * shift + plain)
        yield f"base64+{shift}", encoded[4 if shift else 0 : -4]


def _layers(content: bytes) -> Iterator[tuple[str, bytes]]:
    yield "", content
    for at in range(len(content) - 2):
        if content[at : at + 2] in (b"\x78\x01", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b"):
            try:
                yield "compressed ", zlib.decompressobj(47).decompress(content[at:], 1_000_000)
            except zlib.error:
                continue
