"""Backups of a test's Postgres as an operator makes them: archived WAL, pg_basebackup, and recovery to a moment."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from support.servers import ServerControl
from support.waiting import soon
from threadline_worker.embedded import Postgres

__all__ = ["Backups"]


class Backups:
    """Archiving begins with this object: Postgres is restarted once."""

    def __init__(self, control: ServerControl) -> None:
        self._control = control
        server: Any = control.postgres  # its places are its own; a test of restoring needs them
        self._postgres: Postgres = server
        self._data: Path = server._cluster
        self._programs: Path = server._programs.folder
        self._account = server._place.account
        self._archive = self._folder("archive")
        self._base = self._data.with_name("base")
        self._ask("ALTER SYSTEM SET archive_mode = on")
        self._ask(f"ALTER SYSTEM SET archive_command = 'cp %p {self._archive}/%f'")
        control.stop_postgres()
        control.restart_postgres()

    def base_backup(self) -> None:
        """`pg_basebackup -D base`: a copy of the running server."""
        parts = urlsplit(self._control.urls.database_url)
        command = [self._programs / "pg_basebackup", "-h", "127.0.0.1", "-p", str(parts.port), "-U", "postgres"]
        self._run([*command, "-D", self._base, "-c", "fast", "-X", "none"], PGPASSWORD=str(parts.password))

    def now(self) -> str:
        """A moment to come back to, as Postgres' clock has it."""
        return str(self._ask("SELECT clock_timestamp()"))

    def archived(self) -> None:
        """Wait until all that was committed so far is in the archive."""
        last = str(self._ask("SELECT pg_walfile_name(pg_switch_wal())"))
        soon(lambda: (self._archive / last).exists() and self._idle())

    def restore(self, moment: str) -> None:
        """Lose the server and its data, and recover base backup and archive up to `moment`; up when it takes writes."""
        self._control.stop_postgres("kill")
        shutil.rmtree(self._data)
        self._base.rename(self._data)
        with (self._data / "postgresql.auto.conf").open("a") as settings:
            settings.write(
                f"archive_mode = off\nrestore_command = 'cp {self._archive}/%f %p'\n"
                f"recovery_target_time = '{moment}'\nrecovery_target_action = promote\n"
            )
        (self._data / "recovery.signal").touch()
        self._own(self._data / "recovery.signal")
        self._control.restart_postgres()
        soon(lambda: self._ask("SELECT NOT pg_is_in_recovery()") is True)

    def _idle(self) -> bool:
        return self._ask("SELECT last_failed_wal FROM pg_stat_archiver") is None

    def _ask(self, query: str) -> Any:
        with psycopg.connect(self._control.urls.database_url, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def _folder(self, name: str) -> Path:
        folder = self._data.with_name(name)
        folder.mkdir(mode=0o700)
        self._own(folder)
        return folder

    def _own(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.uid, self._account.gid)

    def _run(self, command: list[Any], **env: str) -> None:
        who = {"user": self._account.uid, "group": self._account.gid, "extra_groups": []} if self._account else {}
        keep = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        subprocess.run(command, cwd="/", env={**keep, **env}, check=True, capture_output=True, text=True, **who)  # type: ignore[call-overload]  # how to drop root
