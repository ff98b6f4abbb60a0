"""Stdout is data, stderr is for people; nothing that an agent wrote can steer the terminal."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from typing import Any

import click

from threadline.contract.codec import dumps

__all__ = [
    "clean",
    "columns",
    "cut",
    "hush",
    "is_drawn",
    "one_line",
    "say",
    "write",
    "write_json",
    "write_json_line",
    "write_line",
]

#: C0 and C1 controls but tab and newline (escape sequences begin with one of them), what separates lines elsewhere,
#: what turns the direction of writing round, and halves of characters, which no terminal takes.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def clean(text: str) -> str:
    """The text with control characters made visible, fit for a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def one_line(text: str, limit: int = 300) -> str:
    """The text as one clean line of at most `limit` characters."""
    # Cut before splitting: a tool's argument may be a megabyte.
    line = clean(" ".join(text[: limit * 4].split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def columns(text: str) -> int:
    """How many columns a terminal needs for a line: wide characters take two, combining ones none."""
    return sum(_columns(character) for character in text)


def cut(text: str, width: int) -> str:
    """The beginning of a line in at most `width` columns, with an ellipsis where something was cut off."""
    if columns(text) <= width:
        return text
    room, kept = width - 1, []
    for character in text:
        room -= _columns(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + "…"


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def is_drawn() -> bool:
    """Whether stdout is a terminal that can be drawn on (TERM=dumb is none); colours are left out where NO_COLOR is."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in {None, "", "dumb"}


def say(message: str) -> None:
    """One line for people, on stderr."""
    click.echo(f"threadline: {one_line(message, 2000)}", err=True)


def write(text: str) -> None:
    """Text on stdout as it is: the reader is a program, or asked for exactly this."""
    click.echo(text, color=False)


def write_line(line: bytes) -> None:
    """One line of data on stdout, in UTF-8 whatever the locale, flushed at once."""
    sys.stdout.flush()
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def write_json(value: Any) -> None:
    """A value as one line of JSON on stdout; moments as ISO 8601."""
    write_json_line(dumps(value))


def write_json_line(encoded: bytes) -> None:
    """A line of JSON on stdout as it is; on a terminal, with what that may obey escaped: the same JSON."""
    if sys.stdout.isatty():
        # Such a character can only stand inside a string, where it may be escaped.
        encoded = _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", encoded.decode()).encode()
    write_line(encoded)


def hush() -> None:
    """The reader of stdout has gone: what is still buffered goes nowhere instead of raising at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
