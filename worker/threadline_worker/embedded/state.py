"""What a folder's owner tells others of its servers; believed only while that owner lives and the servers answer."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from threadline_worker.embedded.postgres import postgres_answers
from threadline_worker.embedded.processes import process_birth
from threadline_worker.embedded.valkey import valkey_answers

__all__ = ["ServerUrls", "announce", "read_private", "running_servers", "withdraw", "write_private"]


@dataclass(frozen=True)
class ServerUrls:
    """What to put into REDIS_URL and DATABASE_URL; passwords included."""

    redis_url: str
    database_url: str


def running_servers(data_dir: Path) -> ServerUrls | None:
    """The servers that another process (or this one) keeps running for `data_dir`, or None.

    The announcement of a process that has ended, or whose id is another process's by now, does not count, nor does one
    whose embedded servers do not answer.
    """
    told = read_private(_file(data_dir))
    try:
        urls = ServerUrls(str(told["redis_url"]), str(told["database_url"]))
        alive = process_birth(int(told["pid"])) == told["born"] is not None
        own = [str(name) for name in told["own"]]
    except (KeyError, TypeError, ValueError):
        return None
    checks = {"redis_url": valkey_answers, "database_url": postgres_answers}
    answering = alive and all(checks[name](getattr(urls, name)) for name in own if name in checks)
    return urls if answering else None


def announce(data_dir: Path, urls: ServerUrls, own: list[str]) -> None:
    """Tell others, all at once, of servers that are ready; `own` names the URLs that are embedded."""
    told = {"pid": os.getpid(), "born": process_birth(os.getpid()), "own": own, **asdict(urls)}
    write_private(_file(data_dir), told)


def withdraw(data_dir: Path) -> None:
    """Tell others that the servers are going."""
    _file(data_dir).unlink(missing_ok=True)


def write_private(path: Path, content: dict[str, Any]) -> None:
    """Write JSON that only we read (0600), so that a reader sees all of it or the one before."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file)
        Path(name).replace(path)
    except BaseException:  # also Ctrl-C: it is raised again, only the half file goes
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def read_private(path: Path) -> dict[str, Any]:
    """What `write_private` wrote; empty if it is missing, unreadable or not ours."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _file(data_dir: Path) -> Path:
    return data_dir / "servers.json"
