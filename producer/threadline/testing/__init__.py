"""For the tests of producers: a client without servers that records, plays scripts and refuses what the real one would.

    from threadline.testing import Client        # or SyncClient, for code that uses threadline.sync

    client = Client()
    client.script("research", events=[("updates", {"model": {}})], result={"report": "…"})
    await code_under_test(client)
    client.assert_enqueued("research", thread_id="t-1", count=1)

A job runs through its agent's script in the moment in which it would be claimed: at once, or when the jobs before it on
its thread have ended. Without a script it stays queued until the test says otherwise (`start`, `emit`, `finish`).
Validation, ownership, idempotency, order and errors are the real client's own code over a ledger in memory; one suite
of tests runs against both.
"""

from __future__ import annotations

from threadline.testing.client import Client, SyncClient
from threadline.testing.records import Enqueued, Resumed

__all__ = ["Client", "Enqueued", "Resumed", "SyncClient"]
