"""A real PgBouncer in transaction mode before a test's Postgres."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from threadline_worker.embedded.account import account_to_drop_to

__all__ = ["pgbouncer"]

_CONFIGURATION = """\
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
admin_users = postgres
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
idle_transaction_timeout = 12
{more}
"""


class Pooler:
    """`url` is the database's, through PgBouncer; `servers()` counts its connections to Postgres."""

    def __init__(self, url: str, admin: str) -> None:
        self.url, self._admin = url, admin

    def servers(self) -> int:
        """Connections that PgBouncer has to Postgres now."""
        return len(self._ask("SHOW SERVERS"))

    def reconnect(self) -> None:
        """New connections to Postgres from now on, which know what was set for the role."""
        self._ask("RECONNECT")

    def _ask(self, command: str) -> list[Any]:
        with psycopg.connect(self._admin, autocommit=True, prepare_threshold=None) as connection:
            # Its console speaks the simple protocol only.
            cursor: Any = psycopg.ClientCursor(connection)
            cursor.execute(command.encode())
            return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def pgbouncer(database_url: str, *, size: int, more: str = "") -> Iterator[Pooler]:
    """PGBOUNCER or PATH names the program; at most `size` connections to Postgres. AssertionError if there is none."""
    program = os.environ.get("PGBOUNCER") or shutil.which("pgbouncer")
    assert program, "no pgbouncer: install it (apt-get install pgbouncer) or name it in PGBOUNCER"
    parts = urlsplit(database_url)
    account = account_to_drop_to()  # it refuses root, too
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-", dir="/var/tmp"))
    folder.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        own = probe.getsockname()[1]
    (folder / "users").write_text(f'"{parts.username}" "{parts.password}"\n')
    (folder / "pgbouncer.ini").write_text(
        _CONFIGURATION.format(host=parts.hostname, port=parts.port, own=own, folder=folder, size=size, more=more)
    )
    who: dict[str, Any] = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
    url = f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{own}{parts.path}"
    command = [program, folder / "pgbouncer.ini"]
    with subprocess.Popen(command, cwd="/", stderr=subprocess.PIPE, text=True, **who) as process:
        try:
            _await(url, process)
            yield Pooler(url, url.replace(parts.path, "/pgbouncer"))
        finally:
            process.kill()
            shutil.rmtree(folder)


def _await(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            psycopg.connect(url, connect_timeout=2, prepare_threshold=None).close()
        except psycopg.OperationalError:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline, "PgBouncer does not answer"
            time.sleep(0.05)
        else:
            return
