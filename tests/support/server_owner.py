"""A process of its own that runs embedded servers, to be interrupted or killed at a chosen moment.

The test is one half, `python server_owner.py OPTIONS` the other; they speak in JSON lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

READY = "ready"
_PATIENCE = 60.0


class ServerOwner:
    """`await_step(sentence)` waits until the owner has said so; after `await_step(READY)` urls and pids are known."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.redis_url = self.database_url = ""
        self.pids: list[int] = []

    def await_step(self, sentence: str) -> None:
        assert self.process.stdout is not None
        said: list[str] = []
        watchdog = threading.Timer(_PATIENCE, self.process.kill)
        watchdog.start()
        try:
            for line in self.process.stdout:
                told = json.loads(line)
                said.append(told["step"])
                if told["step"] == READY:
                    self.redis_url, self.database_url, self.pids = told["redis_url"], told["database_url"], told["pids"]
                if sentence in told["step"]:
                    return
        finally:
            watchdog.cancel()
        assert self.process.stderr is not None
        raise AssertionError(f"the owner never said {sentence!r}, only {said}; {self.process.stderr.read()}")

    def signal_and_wait(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(_PATIENCE)

    def leave(self) -> int:
        """Let the owner leave its block."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        return self.process.wait(_PATIENCE)


@contextlib.contextmanager
def server_owner(
    data_dir: Path | None = None,
    *,
    place: Path | None = None,
    python: Sequence[str | Path] = (sys.executable,),
    env: Mapping[str, str] | None = None,
    **popen: Any,
) -> Iterator[ServerOwner]:
    """Start the other half. place: where throw-away data go; popen: `user=` and the like."""
    options = {"data_dir": str(data_dir) if data_dir else None, "place": str(place) if place else None}
    surroundings = {name: text for name, text in os.environ.items() if name not in {"REDIS_URL", "DATABASE_URL"}}
    with subprocess.Popen(
        [*python, __file__, json.dumps(options)],
        env={**surroundings, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    ) as process:
        try:
            yield ServerOwner(process)
        finally:
            process.kill()


@contextlib.contextmanager
def reachable_folder() -> Iterator[Path]:
    """A throw-away folder that the user whom root drops to can reach, unlike pytest's tmp_path."""
    folder = Path(tempfile.mkdtemp(prefix="embedded-test-", dir="/var/tmp")).resolve()
    folder.chmod(0o755)
    yield folder
    await_no_process_at(folder)
    shutil.rmtree(folder)


def processes_at(place: Path) -> list[str]:
    """The command lines of living processes that name `place` or work below it; the owner half itself left out."""
    if not Path("/proc/self").exists():
        told = subprocess.run(["/bin/ps", "-axo", "command="], capture_output=True, text=True, check=True).stdout
        return [line for line in told.splitlines() if str(place) in line and "server_owner" not in line]
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_text(errors="replace").replace("\0", " ")
            cwd = str((folder / "cwd").readlink())
            if "server_owner" not in command and (str(place) in command or cwd.startswith(str(place))):
                found.append(command)
    return found


def await_no_process_at(place: Path, seconds: float = 20.0) -> None:
    """Wait until no process is left of `place`."""
    deadline = time.monotonic() + seconds
    while (left := processes_at(place)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == [], left


def await_nothing_at(place: Path, seconds: float = 20.0) -> None:
    """Wait until no process and no file is left of `place`."""
    deadline = time.monotonic() + seconds
    while (left := [*processes_at(place), *map(str, place.iterdir())]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == [], left


def await_gone(pids: Sequence[int], seconds: float = 20.0) -> None:
    """Wait until these processes have ended (a zombie that nobody collects has ended)."""
    from threadline_worker.embedded.processes import process_birth

    deadline = time.monotonic() + seconds
    while (left := [pid for pid in pids if process_birth(pid) is not None]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == [], left


def _say(step: str, **more: Any) -> None:
    sys.stdout.write(json.dumps({"step": step, **more}) + "\n")
    sys.stdout.flush()


def _own() -> None:
    from threadline_worker.embedded import account, embedded_server_handles

    options = json.loads(sys.argv[1])
    if options["place"]:
        os.environ["TMPDIR"] = options["place"]
        account.READABLE_PLACES = (Path(options["place"]),)  # tests keep to their own folder
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    data_dir = Path(options["data_dir"]) if options["data_dir"] else None
    try:
        with embedded_server_handles(data_dir, durable=data_dir is not None, on_progress=_say) as servers:
            own = [server for server in (servers.valkey, servers.postgres) if server]
            pids = [pid for server in own for pid in (server.pid, server._keeper.pid) if pid]
            _say(READY, redis_url=servers.urls.redis_url, database_url=servers.urls.database_url, pids=sorted({*pids}))
            sys.stdin.read()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    _own()
