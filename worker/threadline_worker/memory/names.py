"""Where a user's own items are in the store; names of users are made in threadline.contract.user_names."""

from __future__ import annotations

from threadline.contract.user_names import UserNames

__all__ = ["UserNames", "user_namespace"]


def user_namespace(*labels: str, user_id: str, names: UserNames | None = None) -> tuple[str, ...]:
    """The store namespace of a user for an agent's own items: the first label, the user's name, the other labels.

    `names` defaults to this process's environment. Raises ValueError without a label.
    """
    if not labels:
        raise ValueError("give a first label, such as 'orders': it says what the items are")
    first, *others = labels
    return (first, (names or UserNames.from_env()).name(user_id), *others)
