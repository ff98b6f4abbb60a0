"""An operator's calls: what is old goes, a user is erased; refused before anything is done if an argument is wrong."""

from __future__ import annotations

from datetime import timedelta

from threadline.calls.backends import Backends
from threadline.calls.erase import Deleted, delete_user
from threadline.calls.prune import Ages, Pruned, Pruning
from threadline.contract.age import seconds_of_age
from threadline.contract.job import check_user_id
from threadline.errors import InvalidJob

__all__ = ["Care"]

Age = float | timedelta | None


class Care:
    """Every call raises NeedsDatabase without a ledger."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    async def prune(self, older_than: Age, keep: str, jobs: Age, threads: Age, *, waiting: bool) -> Pruned:
        """See `Client.prune`."""
        if keep != "latest":
            raise InvalidJob(f"keep={keep!r}: `latest` is all that can be kept of an idle thread")
        ages = Ages(compact=_seconds(older_than), jobs=_seconds(jobs), threads=_seconds(threads), waiting=waiting)
        backends = self._backends
        return await Pruning(backends.need_ledger("prune()"), backends.redis, backends.keys).prune(ages)

    async def delete_user(self, user_id: str) -> Deleted:
        """See `Client.delete_user`."""
        backends, names = self._backends, self._backends.settings.user_names
        ledger = backends.need_ledger("delete_user()")
        return await delete_user(ledger, backends.redis, backends.keys, check_user_id(user_id), names)


def _seconds(age: Age) -> float | None:
    return None if age is None else seconds_of_age(age)
