"""A real Postgres that only this machine reaches, with a password, and whose data are whole or absent."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import ClassVar, Final

import psycopg

from threadline_worker.embedded.errors import EmbeddedFailed
from threadline_worker.embedded.keeper import Keeper
from threadline_worker.embedded.processes import works_in
from threadline_worker.embedded.programs import PostgresPrograms
from threadline_worker.embedded.server import Place, Server, log_end

__all__ = ["Postgres", "postgres_answers"]

_INITDB_SECONDS: Final = 300.0  # a slow disk; usually under one second
# /dev/shm is 64 MB or less in many containers, and what a killed server leaves there is never removed; with mmap,
# shared memory is anonymous or a file among the data. Huge pages may be announced but not granted: SIGBUS.
_MEMORY: Final = {"shared_memory_type": "mmap", "dynamic_shared_memory_type": "mmap", "huge_pages": "off"}
_INITDB_TAKES_SETTINGS: Final = 16  # the first major version whose initdb has --set

# synchronous_commit stays on: without fsync it costs nothing that could be measured, and with it off a killed Postgres
# lost what it had just committed, which a test that kills it would take for a fault of ours.
_NOT_DURABLE: Final = {"fsync": "off", "full_page_writes": "off"}


def postgres_answers(url: str) -> bool:
    """Whether the server at `url` accepts its password and opens a session within 3 s."""
    try:
        psycopg.connect(url, connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True


class Postgres(Server):
    """Postgres from `programs`, made by initdb on the first start: UTF8, C locale, superuser `postgres`.

    durable: False switches off every sync; a crash of the machine then loses the data, a crash of Postgres does not.
    """

    label: ClassVar = "Postgres"
    stop_signal: ClassVar = SIGINT  # a fast shutdown: sessions are ended, data are written

    def __init__(
        self,
        keeper: Keeper,
        place: Place,
        *,
        programs: PostgresPrograms,
        password: str,
        port: int | None,
        durable: bool,
        max_connections: int,
    ) -> None:
        super().__init__(keeper, place, password=password, port=port)
        self._programs = programs
        self._durable = durable
        self._max_connections = max_connections
        self._cluster = place.home / "cluster"

    @property
    def url(self) -> str:
        """postgresql:// with the password, database `postgres`."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}/postgres"

    def _prepare(self) -> None:
        if self._cluster.exists():
            self._check_version()
            self._check_pid_file()
        else:
            self._place.on_progress("Creating the Postgres database (first start only)")
            self._create()

    def _command(self) -> Sequence[str | Path]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": str(self._max_connections),
            **_MEMORY,
            **({} if self._durable else _NOT_DURABLE),
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [self._programs.folder / "postgres", "-D", self._cluster, *options]

    def _answers(self) -> bool:
        return postgres_answers(self.url)

    def _refuse_the_hopeless(self) -> None:
        if "password authentication failed" in self._log_of_this_start():
            self.kill()
            raise EmbeddedFailed(
                f"The kept password does not open the Postgres data in {self._cluster}: "
                "move that folder away and start again, or set DATABASE_URL."
            )

    def _create(self) -> None:
        """Initdb beside the final place, then a rename: a start that is cut off leaves no half cluster."""
        unfinished = self._cluster.with_name("cluster.new")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        secret = self._write_private("initdb.password", self._password)
        log = self._place.log.with_name("initdb.log")
        log.unlink(missing_ok=True)
        options = ["--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8", "--locale=C", "--no-instructions"]
        if not self._durable:
            options.append("--no-sync")
        if self._programs.major >= _INITDB_TAKES_SETTINGS:
            options += [f"--set={name}={value}" for name, value in _MEMORY.items()]
        argv: list[str | Path] = [self._programs.folder / "initdb", "-D", unfinished, "-U", "postgres", *options]
        try:
            code = self._run(argv, log)
        finally:
            secret.unlink()
        if code != 0:
            text = log.read_text(encoding="utf-8", errors="replace")
            raise EmbeddedFailed(f"Postgres could not create its database; {log_end(log, text)}")
        unfinished.rename(self._cluster)

    def _run(self, argv: Sequence[str | Path], log: Path) -> int:
        """Run a program under the keeper, so that it too ends with this process, and wait for it."""
        pid = self._keeper.spawn(self._request(argv, SIGTERM, log))
        deadline = time.monotonic() + _INITDB_SECONDS
        while (code := self._keeper.exit_code(pid)) is None:
            if time.monotonic() > deadline:
                self._keeper.signal(pid, SIGTERM)
                raise EmbeddedFailed(f"Postgres took over {_INITDB_SECONDS:.0f} s to create its database; see {log}.")
            time.sleep(0.01)
        return code

    def _check_version(self) -> None:
        try:
            made_by = (self._cluster / "PG_VERSION").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            raise EmbeddedFailed(
                f"{self._cluster} holds no Postgres data: move it away and start again, or set DATABASE_URL."
            ) from None
        if made_by != str(self._programs.major):
            raise EmbeddedFailed(
                f"{self._cluster} holds data of Postgres {made_by}, but this is Postgres {self._programs.major}: "
                "move that folder away and start again, or set DATABASE_URL."
            )

    def _check_pid_file(self) -> None:
        """After a crash, postmaster.pid may name a process id that by now is somebody else's (usual in containers).

        Postgres would refuse to start for that. We hold the folder's lock, which every server of ours inherits, so
        only a Postgres started by hand can really be running here.
        """
        file = self._cluster / "postmaster.pid"
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
            pid = int(file.read_text(encoding="utf-8", errors="replace").splitlines()[0])
            if pid == self.pid:
                return  # our own, just killed: Postgres itself knows what to do
            if works_in(pid, self._cluster):
                raise EmbeddedFailed(
                    f"A Postgres started elsewhere (process {pid}) uses {self._cluster}: "
                    f"stop it with `kill -INT {pid}` and start again."
                )
            file.unlink()
