"""Every name that a log line of ours may carry, with what it says; a test holds the code to this table."""

from __future__ import annotations

from typing import Final

__all__ = ["LOG_EVENTS"]

LOG_EVENTS: Final[dict[str, str]] = {
    "worker.starting": "the process has read its configuration",
    "worker.ready": "registered, listening to the queue",
    "worker.waiting_for": "Redis or Postgres does not answer yet; tried again",
    "worker.draining": "SIGTERM or SIGINT: no new jobs, running ones stop at their next step",
    "worker.stopped": "all is given back and closed",
    "worker.configuration": "a variable that nobody reads, or a port that was taken",
    "worker.declared_dead": "the ledger no longer knew this worker; its jobs are others' now; registered anew",
    "worker.stalled": "the event loop stood still for too long; the process ends itself",
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
    "publish.stale": "Redis refused events of an old epoch",
    "publish.dropped": "token events were dropped because Redis is too slow; marked by a gap",
    "agent.loaded": "a graph is ready",
    "agent.failed": "a graph cannot be loaded",
    "citation.removed": "a citation that no tool returned was taken out of a report",
    "corpus.skipped": "a file of the corpus cannot be read",
    "corpus.empty": "the corpus has no readable file",
    "research.no_sources": "research runs without any tool that could find a source",
    "corpus.indexed": "the corpus' index was built",
    "http.request_failed": "the metrics port could not answer",
    "dispatch.failed": "wake-ups could not be put into Redis; the sweep repeats them",
    "announce.failed": "a transition's event could not be published yet",
}
