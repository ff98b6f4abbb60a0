"""Copies of a wheel's programs where a dropped-to user reaches them: made once, whole or absent."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from threadline_worker.embedded.account import shared_place

__all__ = ["reachable_copy"]

# Headers, static libraries and build files of Postgres: a third of the wheel that no server reads.
_NOT_NEEDED = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a", "__pycache__")


def reachable_copy(program: Path, *, site: Path, trees: Sequence[Path], version: str) -> Path:
    """Where `program` stands in the copy of `trees`; the copy is made on the first call for this version and content.

    site: the folder that all `trees` lie in; their places relative to each other are kept, since libraries are found by
    them. OSError when there is no room or no right to write.
    """
    with program.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    programs = shared_place() / "programs"
    programs.mkdir(mode=0o755, exist_ok=True)
    programs.chmod(0o755)
    target = programs / f"{program.name}-{version}-{digest}"
    if not target.exists():
        with _alone_in(programs):
            if not target.exists():
                _copy(site, trees, target)
    return target / program.relative_to(site)


@contextlib.contextmanager
def _alone_in(programs: Path) -> Iterator[None]:
    with (programs / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for remains in programs.glob(".copy-*"):  # of a process that was killed while it copied
            shutil.rmtree(remains)
        yield


def _copy(site: Path, trees: Sequence[Path], target: Path) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=".copy-", dir=target.parent))
    try:
        for tree in trees:
            shutil.copytree(tree, unfinished / tree.relative_to(site), symlinks=True, ignore=_NOT_NEEDED)
        _open_to_all(unfinished)
        unfinished.rename(target)
    except BaseException:  # also Ctrl-C: it is raised again, only the half copy goes
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _open_to_all(folder: Path) -> None:
    """Everyone may read and run, nobody but us may write, whatever the umask of the wheel's installation was."""
    for place, _, names in os.walk(folder):
        Path(place).chmod(0o755)
        for path in (Path(place) / name for name in names):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
