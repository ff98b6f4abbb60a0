"""Several workers on one host: each has a port of its own, which its log names, and shows its own figures there."""

from __future__ import annotations

from support.workers import WorkerHandle, Workers


def _port(worker: WorkerHandle) -> int:
    return int(worker.metrics_url.removesuffix("/metrics").rpartition(":")[2])


def test_each_worker_of_a_host_has_a_port_of_its_own_and_says_which(env: dict[str, str]) -> None:
    unset = {name: value for name, value in env.items() if name != "THREADLINE_METRICS_PORT"}
    with Workers(unset) as crew:
        usual = [crew.start(), crew.start()]
        free = [crew.start(THREADLINE_METRICS_PORT="0", THREADLINE_CONCURRENCY=str(slots)) for slots in (3, 4)]
        ports = [_port(worker) for worker in (*usual, *free)]
        assert len(set(ports)) == len(ports)
        for worker, slots in zip(free, (3, 4), strict=True):
            assert f"threadline_worker_slots {slots}.0\n" in worker.metrics()
        # One of the first two may have the default port; the other one says that it is taken, and what it took instead.
        told = [entry for entry in usual[1].entries if entry.get("problem") == "port 9464 is taken"]
        assert [entry["using"] for entry in told] == [ports[1]]
        assert ports[0] == 9464 or "port 9464 is taken" in str(usual[0].entries)
