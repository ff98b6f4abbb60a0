"""What stands in the store under an earlier name of a user comes to today's name, the newer of two equals kept."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import Any, LiteralString, NamedTuple

from threadline.ledger.sql import Queries
from threadline_worker.memory.names import UserNames
from threadline_worker.memory.routes import Route, label_of

__all__ = ["Moves", "move_statement", "moves_of_user"]


class Moves(NamedTuple):
    """Prefixes as the store's table has them (labels joined by `.`), each with the one that it becomes."""

    pairs: tuple[tuple[str, str], ...]

    def __bool__(self) -> bool:
        return bool(self.pairs)

    @property
    def parameters(self) -> dict[str, Any]:
        """Of the statement."""
        return {"old": [old for old, _ in self.pairs], "new": [new for _, new in self.pairs]}

    @property
    def namespaces(self) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        """The same as labels, which hold no `.`."""
        return [(tuple(old.split(".")), tuple(new.split("."))) for old, new in self.pairs]


def moves_of_user(names: UserNames, routes: Iterable[Route], user_id: str) -> Moves:
    """The folders of a user's routes under each earlier name; none without keys."""
    labels = [label_of(route.path) for route in routes if route.kind == "user"]
    today = names.name(user_id)
    return Moves(tuple((f"{label}.{old}", f"{label}.{today}") for label in labels for old in names.earlier(user_id)))


def move_statement(queries: Queries) -> LiteralString:
    """The statement; its parameters are `Moves.parameters`."""
    return queries.fill((files(__package__) / "move.sql").read_text(encoding="utf-8"))
