"""A worker process takes a job, streams it and ends it."""

from __future__ import annotations


async def test_a_job_runs_and_its_events_have_no_hole(client, workers) -> None:
    worker = workers()
    job = await client.enqueue("steps", {"done": [], "until": 3})
    events = [event async for event in job.events()]
    assert [(event.id, event.type) for event in events] == [
        ("0-1", "queued"),
        ("1-1", "started"),
        ("1-2", "updates"),
        ("1-3", "updates"),
        ("1-4", "updates"),
        ("2-1", "succeeded"),
    ]
    assert await job.result() == {"done": [0, 1, 2], "until": 3}
    assert worker.terminate() == 0
