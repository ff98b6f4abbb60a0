"""Reads a .env file as dotenv does; what a line holds is never shown, only its number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["EnvFile", "parse_env"]

_ENTRY: Final = re.compile(
    r"""[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][\w.-]*)[ \t]*
    (?:=[ \t]*(?:'(?P<raw>(?:\\'|[^'])*)'|"(?P<quoted>(?:\\.|[^"\\])*)"|(?P<plain>[^\r\n]*?))
    (?P<comment>[ \t]*(?:(?<=[\s'"])\#[^\r\n]*)?)?)?[ \t]*(?:\r?\n|\Z)""",
    re.VERBOSE,
)
_LINE: Final = re.compile(r"[^\n]*(?:\n|\Z)")
_BLANK: Final = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\r?\n|\Z)")
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t"}
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_REFERENCE: Final = re.compile(r"\$\{([A-Za-z_]\w*)(?::-([^}]*))?\}")


class EnvFile(NamedTuple):
    """The variables in their order, and the numbers of the lines that are none."""

    variables: dict[str, str]
    unreadable: list[int]


def parse_env(text: str, known: Mapping[str, str]) -> EnvFile:
    r"""Read `NAME=value` lines: `export`, comments, '…', "…\n" over several lines, `${NAME:-default}` (not in '…').

    `known` are variables that references may name; they come before those of the file.
    """
    found = EnvFile({}, [])
    at = 0
    while at < len(text):
        if blank := _BLANK.match(text, at):
            at = max(blank.end(), at + 1)
        elif entry := _ENTRY.match(text, at):
            if (value := _value(entry, {**found.variables, **known})) is not None:
                found.variables[entry["name"]] = value
            at = entry.end()
        else:
            found.unreadable.append(text.count("\n", 0, at) + 1)
            line = _LINE.match(text, at)
            at = line.end() if line else len(text)
    return found


def _value(entry: re.Match[str], known: Mapping[str, str]) -> str | None:
    """None for a name alone."""
    if entry["raw"] is not None:
        return entry["raw"].replace("\\'", "'")
    if entry["quoted"] is not None:
        return _filled(_ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), entry["quoted"]), known)
    return None if entry["plain"] is None else _filled(entry["plain"], known)


def _filled(value: str, known: Mapping[str, str]) -> str:
    return _REFERENCE.sub(lambda found: known.get(found[1], found[2] or ""), value)
