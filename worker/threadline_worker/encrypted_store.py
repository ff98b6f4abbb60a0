"""LangGraph's store with its values sealed: keys and namespaces find an item, nothing that is in it does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langgraph.store.base import Item, Op, PutOp, Result, SearchOp
from langgraph.store.postgres.aio import AsyncPostgresStore

from threadline.encryption import places
from threadline.encryption.vault import PLAIN, Vault

__all__ = ["SealingStore", "SearchInSealedValuesError"]


class SearchInSealedValuesError(ValueError):
    """A search with a filter, while values are sealed."""


class SealingStore(AsyncPostgresStore):
    """`vault` without keys leaves everything as LangGraph writes it. Reads raise CannotDecrypt.

    With keys nothing is indexed for semantic search (an embedding tells much of its text): `query` ranks nothing, and
    a `filter` raises SearchInSealedValuesError.
    """

    _vault: Vault = PLAIN

    def __init__(self, conn: Any, *, vault: Vault = PLAIN, **more: Any) -> None:
        super().__init__(conn, **more)
        self._vault = vault

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """What every call of a store comes down to."""
        results = await super().abatch([self._asked(op) for op in ops])
        return [self._opened(result) for result in results]

    def _asked(self, op: Op) -> Op:
        if not self._vault.on:
            return op
        if isinstance(op, PutOp) and op.value is not None:
            return op._replace(value=self._vault.seal(op.value, _place(op.namespace, op.key)), index=False)
        if isinstance(op, SearchOp):
            if op.filter:
                raise SearchInSealedValuesError(
                    "filter= cannot look into values that THREADLINE_ENCRYPTION_KEYS seals: search by namespace and"
                    " look at what comes back"
                )
            return op._replace(query=None)
        return op

    def _opened(self, result: Result) -> Result:
        if isinstance(result, Item):
            result.value = self._vault.open(result.value, _place(result.namespace, result.key))
        elif isinstance(result, list):
            for item in result:
                if isinstance(item, Item):
                    self._opened(item)
        return result


def _place(namespace: tuple[str, ...], key: str) -> places.Place:
    return places.item(".".join(namespace), key)
