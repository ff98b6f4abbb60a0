"""All commands with their one line of help: listing them imports none of them."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["COMMANDS", "GROUP", "SECTIONS", "Entry"]

#: The entry points of the worker half: a click.Command under the command's name.
GROUP: Final = "threadline.commands"


class Entry(NamedTuple):
    """A command: where help lists it, its short help, and `module:attribute`, None for an entry point of GROUP."""

    section: str
    help: str
    home: str | None = None


_JOBS: Final = "Jobs"
_THREADS: Final = "Threads"
_WORKERS: Final = "Workers and agents"
_CARE: Final = "Set-up and care"
SECTIONS: Final = (_JOBS, _THREADS, _WORKERS, _CARE)

COMMANDS: Final[dict[str, Entry]] = {
    "enqueue": Entry(_JOBS, "Give an agent a job; prints the job's id.", "threadline.cli.enqueue:enqueue"),
    "watch": Entry(_JOBS, "Follow a job until it ends.", "threadline.cli.watch.command:watch"),
    "result": Entry(_JOBS, "Wait for a job's result and print it.", "threadline.cli.result:result"),
    "status": Entry(_JOBS, "Say where a job stands.", "threadline.cli.status:status"),
    "jobs": Entry(_JOBS, "List jobs, newest first.", "threadline.cli.jobs:jobs"),
    "cancel": Entry(_JOBS, "Stop a queued or running job.", "threadline.cli.cancel:cancel"),
    "retry": Entry(_JOBS, "Continue a failed or cancelled job.", "threadline.cli.retry:retry"),
    "inbox": Entry(_JOBS, "List what waits for a person.", "threadline.cli.inbox:inbox"),
    "resume": Entry(_JOBS, "Answer what a thread waits for.", "threadline.cli.resume:resume"),
    "history": Entry(_THREADS, "List a thread's checkpoints, newest first.", "threadline.cli.history:history"),
    "state": Entry(_THREADS, "Print a thread's state, now or at a checkpoint.", "threadline.cli.state:state"),
    "fork": Entry(_THREADS, "Begin a new thread where another one was.", "threadline.cli.fork:fork"),
    "update-state": Entry(_THREADS, "Change a thread's state.", "threadline.cli.update_state:update_state"),
    "worker": Entry(_WORKERS, "Run a worker until it is told to stop."),
    "agents": Entry(_WORKERS, "List the agents that workers here can run."),
    "demo": Entry(_WORKERS, "Show a job surviving the death of its worker."),
    "dev": Entry(_CARE, "Start embedded servers and workers for development."),
    "migrate": Entry(_CARE, "Bring the database's schema up to date."),
    "memory": Entry(_CARE, "List, seed, save and delete what agents remember."),
    "prune": Entry(_CARE, "Compact idle threads; let old jobs and threads go.", "threadline.cli.prune:prune"),
    "delete-user": Entry(_CARE, "Erase everything of a user.", "threadline.cli.delete_user:delete_user"),
    "doctor": Entry(_CARE, "Check servers, schema, workers and settings.", "threadline.cli.doctor.command:doctor"),
}
