"""Every name that a log line of ours may carry, with what it says; a test holds the code to this table."""

from __future__ import annotations

from typing import Final

__all__ = ["LOG_EVENTS", "REPEATING"]

LOG_EVENTS: Final[dict[str, str]] = {
    "worker.starting": "the process has read its configuration",
    "worker.ready": "registered, listening to the queue",
    "worker.waiting_for": "Redis or Postgres does not answer yet; tried again",
    "worker.draining": "SIGTERM or SIGINT: no new jobs, running ones stop at their next step",
    "worker.stopped": "all is given back and closed",
    "worker.configuration": "a variable that nobody reads, or a port that was taken",
    "worker.declared_dead": "the ledger no longer knew this worker; its jobs are others' now; registered anew",
    "worker.stalled": "the event loop stood still for too long, or the beat broke; the process ends itself",
    "worker.exhausted": "there is no memory left; the process ends itself, its jobs are rescued",
    "internal.claimed": "this worker has an operation on a thread (state, history, fork, update_state, compact)",
    "internal.finished": "the operation ended here",
    "job.claimed": "this worker has the job",
    "job.finished": "the job ended here",
    "job.released": "the job was given back",
    "thread.restored": "a rollback is complete: the thread is where it was before the job",
    "job.adopted": "a message that carried a whole job is in the ledger now",
    "job.rescued": "a dead worker's job is back in the queue, or ended as poisoned",
    "job.failed": "an agent raised an exception",
    "job.cancel": "a running job is asked to stop",
    "job.abandoned": "a cancelled step did not stop in time; its writes are fenced",
    "lease.lost": "the ledger gave a job of ours to somebody else; it is cancelled here",
    "claim.lost": "a claim whose answer never came was given back",
    "worker.dead": "another worker is taken for dead",
    "beat.failed": "a heartbeat did not reach Postgres",
    "clock.skew": "this machine's clock is too far from the database's: no claims",
    "sweep.failed": "one round of the sweep did not work; tried again in a second",
    "queue.failed": "arq's loop ended and is started again",
    "queue.purged": "a message that nothing can read was removed",
    "queue.dead_letter": "a message that can never become a job was set aside",
    "publish.failed": "Redis did not take events; kept and sent again",
    "publish.ended": "a bug of ours ended a job's progress: the rest of this epoch's events is a gap; the job goes on",
    "publish.stale": "Redis refused events of an old epoch",
    "publish.dropped": "Redis is too slow: token events were dropped and marked by a gap, or large data was cut",
    "store.swept": "expired items were deleted, or items without a vector were indexed",
    "store.sweep_failed": "one look for expired and unindexed items did not work; tried again",
    "store.unindexed": "memory is searched without meaning, and why",
    "store.embedding_failed": "the embedding model did not answer: kept or searched without a vector, indexed later",
    "retention.pruned": "old jobs and threads were deleted, or idle threads compacted",
    "retention.user_deleted": "the deletion of a user, which was left alone, went on here",
    "retention.failed": "one round of retention did not work; tried again",
    "agent.loaded": "a graph is ready",
    "agent.changed": "a job goes on in another graph than it was left with; it has all that the thread needs",
    "agent.failed": "a graph cannot be loaded, made or closed",
    "agent.surroundings": "a langgraph.json asks for a package or an env file that is not there",
    "citation.removed": "a citation that no tool returned was taken out of a report",
    "corpus.skipped": "a file of the corpus cannot be read",
    "corpus.empty": "the corpus has no readable file",
    "research.no_sources": "research runs without any tool that could find a source",
    "corpus.indexed": "the corpus' index was built",
    "http.request_failed": "the metrics port could not answer",
    "dispatch.failed": "wake-ups could not be put into Redis; the sweep repeats them",
    "webhook.delivered": "a receiver took the report of a job's end",
    "webhook.attempt_failed": "a report was not taken; tried again later",
    "webhook.failed": "a report is given up: too many tries, 410, or an address that is not allowed",
    "webhook.held": "reports wait for a worker that has THREADLINE_WEBHOOK_SECRETS",
    "webhook.outbox_failed": "the ledger did not answer about webhooks; asked again",
    "announce.failed": "a transition's event could not be published yet",
    "log.suppressed": "a job logged more than THREADLINE_LOG_LINES_PER_JOB; so many lines of its epoch were left out",
    "log.dropped": "nobody read the log for a while; so many lines did not fit into memory",
    "log.unreadable": "some code logged what cannot be made a line, such as arguments that do not fit",
    "python.warning": "Python's warnings.warn, by any code",
    "exception.uncaught": "an exception that nobody caught: in a thread, while cleaning up, or at the process' end",
}

#: Names that tell of a condition that may last: of these some lines pass, and then one a minute (line_budget.py).
REPEATING: Final = frozenset(
    {
        *("beat.failed", "clock.skew", "claim.lost", "sweep.failed", "worker.waiting_for", "http.request_failed"),
        *("queue.failed", "queue.purged", "queue.dead_letter", "dispatch.failed", "announce.failed"),
        *("publish.failed", "publish.dropped", "job.failed", "agent.failed", "python.warning", "log.unreadable"),
        *("corpus.skipped", "citation.removed", "exception.uncaught"),
        *("store.sweep_failed", "store.embedding_failed", "store.unindexed", "retention.failed"),
        *("webhook.outbox_failed", "webhook.held"),
    }
)
