"""Makes docs/images/watch.svg from a real run: real servers, two real workers, one SIGKILL typed into a real shell.

`python docs/record.py [--still SECONDS FILE]…`: with --still also a screen of it, for tools that do not animate. What
the picture shows has happened on this machine in that time; only the wait for the workers' first lease is left out.
"""
# ruff: noqa: INP001, T201 - a script of its own that talks on stdout, not a module of the package

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

import pexpect
import pyte
from terminal_svg import Frame, Pane, animated, rows_of, still

from threadline import Client
from threadline.contract.keys import Keys
from threadline.settings import ClientSettings
from threadline_worker.agents.research.package_corpus import write_package_descriptions
from threadline_worker.demo.director import Director
from threadline_worker.dev import prepare, worker_env
from threadline_worker.embedded import embedded_servers
from threadline_worker.local_workers import LocalWorkers

TARGET: Final = Path(__file__).resolve().parent / "images" / "watch.svg"
QUESTION: Final = "What is the fastest JSON library?"
COLUMNS: Final = 92
WATCH: Final = Pane("threadline enqueue … --watch", 32)
SHELL: Final = Pane("another terminal", 3)
LIMIT_BYTES: Final = 300_000
#: A pace that a person can follow.
TOKENS_PER_SECOND: Final = "60"
#: A worker's freed lock counts for rescuers whose own session is older than the lease (design.md V2), 15 s by default.
LEASE_SECONDS: Final = 15.0
FRAMES_PER_SECOND: Final = 4
_SGR: Final = re.compile(r"\x1b\[([\d;]*)m")


class Terminal:
    """A program in a pseudo-terminal, and what is to be seen there."""

    def __init__(self, command: Sequence[str], lines: int, env: Mapping[str, str]) -> None:
        self._screen = pyte.Screen(COLUMNS, lines)
        self._stream = pyte.Stream(self._screen)
        size = {"COLUMNS": str(COLUMNS), "LINES": str(lines), "TERM": "xterm-256color"}
        self._child = pexpect.spawn(
            command[0], list(command[1:]), env={**env, **size}, dimensions=(lines, COLUMNS), encoding="utf-8"
        )
        self._child.delaybeforesend = None
        self.text = ""

    @property
    def rows(self) -> tuple[tuple[object, ...], ...]:
        """The screen as it is now."""
        return rows_of(self._screen)

    @property
    def alive(self) -> bool:
        """Whether the program runs."""
        return bool(self._child.isalive())

    def read(self) -> None:
        """Take what the program has written."""
        try:
            while data := self._child.read_nonblocking(65_536, timeout=0):
                self.text += data
                self._stream.feed(_SGR.sub(_grey, data))
        except (pexpect.TIMEOUT, pexpect.EOF):
            return

    async def type(self, text: str) -> None:
        """As a person does, a key after the other."""
        for key in text:
            self._child.send(key)
            await asyncio.sleep(0.04)

    def close(self) -> None:
        """End the program if it still runs."""
        self._child.close(force=True)


class Camera:
    """Takes frames until it is told to stop; equal ones are one."""

    def __init__(self, terminals: Sequence[Terminal]) -> None:
        self._terminals = terminals
        self.frames: list[Frame] = []

    async def run(self) -> None:
        """Look at the terminals a few times a second."""
        began = time.monotonic()
        while True:
            for terminal in self._terminals:
                terminal.read()
            panes = tuple(terminal.rows for terminal in self._terminals)
            if not self.frames or self.frames[-1].panes != panes:
                self.frames.append(Frame(time.monotonic() - began, panes))  # type: ignore[arg-type] # rows of segments
            await asyncio.sleep(1 / FRAMES_PER_SECOND)


def main() -> int:
    """Record, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--still", nargs=2, action="append", default=[], metavar=("SECONDS", "FILE"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="threadline-record-") as folder:
        frames = record(Path(folder))
    panes = (WATCH, SHELL)
    picture = animated(frames, panes, COLUMNS)
    for seconds, file in options.still:
        Path(file).write_text(still(_at(frames, float(seconds)), panes, COLUMNS), encoding="utf-8")
    if (size := len(picture.encode())) > LIMIT_BYTES:
        print(f"the picture has {size:,} bytes, over {LIMIT_BYTES:,}: record fewer frames", file=sys.stderr)
        return 1
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(picture, encoding="utf-8")
    print(f"{TARGET}: {len(frames)} frames, {frames[-1].at:.0f} s, {size:,} bytes")
    return 0


def record(folder: Path) -> list[Frame]:
    """Run the story in a folder of its own; nothing of it is left."""
    # As whoever installs it: none of the recorder's own settings, servers that nobody else uses.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("THREADLINE_")}
    for name in ("REDIS_URL", "DATABASE_URL", "NO_COLOR"):
        clean.pop(name, None)
    with embedded_servers(folder / "data", env=clean, on_progress=print) as urls:
        asyncio.run(prepare(urls, Keys()))
        write_package_descriptions(folder / "corpus")
        env = {
            **worker_env(urls),
            "THREADLINE_CORPUS": str(folder / "corpus"),
            "THREADLINE_CACHE_DIR": str(folder / "cache"),
            "THREADLINE_OFFLINE_TOKENS_PER_SECOND": TOKENS_PER_SECOND,
        }
        with LocalWorkers(env) as workers:
            for number in (1, 2):
                workers.start(f"worker {number}", log=folder / f"worker-{number}.log")
            return asyncio.run(_play(env, folder))


async def _play(env: Mapping[str, str], folder: Path) -> list[Frame]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    shell = {**env, "PATH": path, "PS1": "$ ", "HOME": str(folder), "BASH_SILENCE_DEPRECATION_WARNING": "1"}
    bash = ("bash", "--norc", "--noprofile", "-i")
    terminals = Terminal(bash, WATCH.lines, shell), Terminal(bash, SHELL.lines, shell)
    settings = ClientSettings.from_env(env)
    try:
        async with Client(settings=settings) as client:
            await _ready(client)
            camera = Camera(terminals)
            filming = asyncio.create_task(camera.run())
            await terminals[0].type(f"threadline enqueue research {shlex.quote(QUESTION)} --watch\n")
            await _direct(client, await _job(terminals[0]), terminals[1])
            await asyncio.sleep(1.0)
            filming.cancel()
            await asyncio.gather(filming, return_exceptions=True)
    finally:
        for terminal in terminals:
            terminal.close()
    return camera.frames


async def _ready(client: Client) -> None:
    """Until the workers could notice each other's death at once, as they can from their first lease on."""
    print(f"waiting {LEASE_SECONDS + 5:g} s, until both workers are older than their lease")
    await asyncio.sleep(LEASE_SECONDS + 5)
    await client.jobs(limit=1)


async def _job(terminal: Terminal) -> str:
    """The id that `enqueue` prints."""
    for _ in range(100):
        if (found := re.search(r"\b[0-9a-f]{32}\b", terminal.text)) is not None:
            return found[0]
        await asyncio.sleep(0.1)
    raise SystemExit(f"no job was enqueued; the terminal says: {terminal.text!r}")


async def _direct(client: Client, job_id: str, shell: Terminal) -> None:
    """Follow the job to its end; when it is under way, its worker is killed from the other terminal."""
    typing: list[asyncio.Task[None]] = []

    def kill(worker_id: str) -> None:
        pid = worker_id.rsplit("-", 2)[1]  # host-pid-random
        typing.append(asyncio.create_task(shell.type(f"kill -9 {pid}\n")))

    director = Director(kill, ready_at=time.monotonic())
    job = await client.job(job_id)
    async with aclosing(job.events()) as events:
        async for event in events:
            director.saw(event)
    await asyncio.gather(*typing)


def _grey(found: re.Match[str]) -> str:
    """Dim (SGR 2), which pyte does not know, as grey."""
    parts = ["90" if part == "2" else part for part in found[1].split(";")]
    return f"\x1b[{';'.join(parts)}m"


def _at(frames: Sequence[Frame], moment: float) -> Frame:
    return [frame for frame in frames if frame.at <= moment][-1]


if __name__ == "__main__":
    sys.exit(main())
