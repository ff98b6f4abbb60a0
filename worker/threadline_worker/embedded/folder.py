"""The data folder: one owner at a time, closed to others, the same password and ports on every start."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from threadline_worker.embedded.account import Account, account_to_drop_to, can_reach, shared_place
from threadline_worker.embedded.errors import EmbeddedFailed
from threadline_worker.embedded.state import ServerUrls, read_private, running_servers, write_private

__all__ = ["Access", "DataFolder", "data_place", "hold_or_find", "open_folder", "read_access", "write_access"]

_WAIT_SECONDS: Final = 60.0  # for another process that is just starting or stopping its servers


@dataclass(frozen=True)
class Access:
    """What stays the same from start to start: the password, and the ports to try first."""

    password: str
    redis_port: int | None = None
    postgres_port: int | None = None


@dataclass(frozen=True)
class DataFolder:
    """Where the servers' homes and logs are, and as whom they run."""

    data: Path
    logs: Path
    account: Account | None


def open_folder(path: Path) -> None:
    """Make the folder, closed to others, with a .gitignore for all that is in it; one that exists is left as it is."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        account = account_to_drop_to()
        # Root's servers run as another user: they must pass through the folder, though they cannot list it.
        passable = account is not None and can_reach(account, path.parent)
        path.mkdir(exist_ok=True)
        path.chmod(0o711 if passable else 0o700)
    ignore = path / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")


@contextlib.contextmanager
def hold_or_find(path: Path) -> Iterator[int | ServerUrls]:
    """Become the folder's owner (a locked file descriptor) or find the servers of the owner that there is.

    The descriptor is handed to the keeper and all servers: the lock is free only when the last of them has gone, also
    after a crash of this process. Hence it is closed, never unlocked. EmbeddedFailed when the owner neither offers
    servers nor goes within a minute.
    """
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            if _locked(descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)
        if found := running_servers(path):
            yield found
            return
        if time.monotonic() > deadline:
            raise EmbeddedFailed(
                f"Another process holds {path} but its servers do not answer: "
                f"end it (`fuser -v {path / 'lock'}` names it), or choose another folder."
            )
        time.sleep(0.05)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def data_place(path: Path) -> DataFolder:
    """The place of the data: `data` in the folder, or what `data` links to where the servers' user cannot go."""
    data, logs = path / "data", path / "logs"
    logs.mkdir(mode=0o700, exist_ok=True)
    account = account_to_drop_to(data / "postgres")
    if account is None or (can_reach(account, path) and not data.is_symlink()):
        data.mkdir(mode=0o711 if account else 0o700, exist_ok=True)
    else:
        _link_elsewhere(path.resolve(), data, account)
    return DataFolder(data.resolve(), logs, account)


def _link_elsewhere(path: Path, data: Path, account: Account) -> None:
    """Keep root's data where `account` can go, under a name that follows from the folder's own."""
    name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    elsewhere = shared_place() / "data" / name
    for place in (elsewhere.parent, elsewhere):
        place.mkdir(exist_ok=True)
        place.chmod(0o711)
    if data.is_symlink():
        if data.readlink() != elsewhere:
            raise EmbeddedFailed(
                f"{data} links to {data.readlink()}, not to {elsewhere}: move it away and start again."
            )
    elif data.exists():
        raise EmbeddedFailed(
            f"{account.name}, whom Postgres runs as, cannot reach {data}: move it away and start again."
        )
    else:
        data.symlink_to(elsewhere)


def read_access(path: Path) -> Access:
    """The password and ports of earlier starts; a new password at the first."""
    told = read_private(path / "access.json")
    ports = {name: told.get(name) for name in ("redis_port", "postgres_port")}
    known = {name: port for name, port in ports.items() if isinstance(port, int)}
    password = told.get("password")
    if isinstance(password, str) and password.isalnum():
        return Access(password, **known)
    return Access(secrets.token_hex(16))


def write_access(path: Path, access: Access) -> None:
    """Keep the password (before the first initdb) and the ports (once they are settled) for the next start."""
    write_private(path / "access.json", {**access.__dict__})
