"""Whom the servers run as: never root, because Postgres refuses it and Valkey does not need it."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from threadline_worker.embedded.errors import EmbeddedFailed, EmbeddedUnavailable

__all__ = ["Account", "account_to_drop_to", "can_reach", "give", "shared_place", "throw_away_place"]

# Where everyone may look and root's servers keep what they cannot reach elsewhere. What is made there is made safely:
# by mkdtemp, or under the checks of `shared_place`.
READABLE_PLACES: tuple[Path, ...] = (Path("/var/tmp"), Path("/tmp"))  # noqa: S108

_UNPRIVILEGED: Final = ("nobody", "postgres")


@dataclass(frozen=True)
class Account:
    """A user and group that root hands a server to."""

    uid: int
    gid: int
    name: str


def account_to_drop_to(existing: Path | None = None) -> Account | None:
    """The account for the servers; None when this process is not root and they run as it does.

    existing: a server's data; when it belongs to a user other than root, that user goes on with it.
    EmbeddedUnavailable when this machine knows no user but root (a container with a single id).
    """
    if os.geteuid() != 0:
        return None
    for account in _candidates(existing):
        if _can_become(account):
            return account
    raise EmbeddedUnavailable(
        "Postgres refuses to run as root and there is no other user here: "
        "run as a normal user, or set REDIS_URL and DATABASE_URL."
    )


def _candidates(existing: Path | None) -> Iterator[Account]:
    if existing is not None and existing.exists():
        owner = existing.stat()
        if owner.st_uid != 0:
            yield Account(owner.st_uid, owner.st_gid, f"user {owner.st_uid}")
            return
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        yield Account(entry.pw_uid, entry.pw_gid, name)


def _can_become(account: Account) -> bool:
    """Whether the kernel lets us: in a user namespace without that id it does not."""
    try:
        subprocess.run(("/bin/sh", "-c", ":"), user=account.uid, group=account.gid, extra_groups=[], check=False)
    except FileNotFoundError:
        return True  # no shell here, but the change of user, which comes first, was granted
    except OSError:
        return False
    return True


def can_reach(account: Account | None, folder: Path) -> bool:
    """Whether `account` may pass through `folder` and all folders above it (None: whoever we are)."""
    if account is None:
        return True
    return all(_may_enter(account, place.stat()) for place in (folder, *folder.parents))


def _may_enter(account: Account, status: os.stat_result) -> bool:
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def give(path: Path, account: Account | None) -> None:
    """Make `account` the owner of `path`."""
    if account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def throw_away_place(account: Account | None) -> Path:
    """Where throw-away data go: a place that `account` reaches."""
    if account is None:
        return Path(tempfile.gettempdir())
    return _world_readable()


def shared_place() -> Path:
    """A folder of our own that every user reaches and only we write: for data and programs under a closed home.

    Its name is known to everyone and stands in a folder that all may write to: one that another user made first
    is refused with EmbeddedFailed.
    """
    place = _world_readable() / f"threadline-{os.geteuid()}"
    place.mkdir(mode=0o755, exist_ok=True)
    status = place.lstat()
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not ours or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EmbeddedFailed(f"{place} was made by somebody else or others may write to it: remove it and start again.")
    place.chmod(0o755)
    return place


def _world_readable() -> Path:
    for place in READABLE_PLACES:
        if place.is_dir():
            return place
    raise EmbeddedUnavailable(f"None of {', '.join(map(str, READABLE_PLACES))} exists: make one, or set DATABASE_URL.")
