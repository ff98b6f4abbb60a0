"""Every statement is a file: read once, with the schema's name put in; no query text among Python."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import LiteralString

__all__ = ["Queries", "migrations"]


class Queries:
    """The statements of one namespace: `queries["claim"]` is queries/claim.sql.

    `schema` holds the ledger, `checkpoints` LangGraph's tables; both are checked identifiers (contract.keys).
    """

    def __init__(self, schema: str, checkpoints: str | None = None) -> None:
        self._schema = schema
        self._checkpoints = checkpoints or schema
        self._ready: dict[str, LiteralString] = {}

    def __getitem__(self, name: str) -> LiteralString:
        if (query := self._ready.get(name)) is None:
            query = self._ready[name] = self.fill(_read("queries", f"{name}.sql"))
        return query

    def fill(self, text: str) -> LiteralString:
        """Put the names in. Only these two words in braces are known; SQL has no others."""
        # The text comes from our own files and the names were checked: as literal as it gets.
        return text.replace("{schema}", self._schema).replace("{checkpoints}", self._checkpoints)


@cache
def _read(folder: str, name: str) -> str:
    return (files(__package__) / folder / name).read_text(encoding="utf-8")


def migrations() -> list[tuple[int, str, str]]:
    """All migrations in order: number, name, text."""
    names = sorted(entry.name for entry in (files(__package__) / "schema").iterdir() if entry.name.endswith(".sql"))
    return [(int(name[:4]), name, _read("schema", name)) for name in names]
