"""A program: answers a question again and again, each time with the worker killed at another call.

`python -m support.resume_sweep AGENT` with a worker's environment. AGENT asks; "A" is the first answer, and the worker
that takes it is killed; then another one goes on, and "B" answers whatever is asked next. One JSON line a point, the
last one undisturbed: what was asked behind the first answer, and the result.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from typing import Any

from support.crash_sweep import KILLED, in_a_process, rescue, work
from threadline import Client
from threadline_worker.telemetry.logs import configure_logs


def main() -> None:
    agent = sys.argv[1]
    configure_logs(os.environ.get("THREADLINE_LOG_LEVEL", "error"), "json")
    for point in itertools.count():
        thread = f"{agent}-{point}"
        _ask(lambda client, thread=thread: client.enqueue(agent, {"heard": []}, thread_id=thread))
        in_a_process(lambda: work(None))
        _ask(lambda client, thread=thread: client.resume(thread, "A"))
        found: dict[str, Any] = {"point": point}
        code = in_a_process(lambda point=point: work(point))
        if code == KILLED:
            rescue()
            found["recovered"] = in_a_process(lambda: work(None))
        print(json.dumps({**found, **_ended(thread)}), flush=True)  # noqa: T201 - its output
        if code != KILLED:
            return


def _ended(thread: str) -> dict[str, Any]:
    """What is asked now; and the thread's result, with "B" for the answer."""
    waiting = _ask(lambda client: client.inbox(thread_id=thread))
    asked = [one["value"] for each in waiting for one in each.interrupts]
    last = _ask(lambda client: client.resume(thread, "B"))
    in_a_process(lambda: work(None))
    return {"asked": asked, "heard": _ask(lambda client: _result(client, last.job_id))["heard"]}


async def _result(client: Client, job_id: str) -> Any:
    return await (await client.job(job_id)).result(timeout=10)


def _ask(call: Any) -> Any:
    async def run() -> Any:
        async with Client.from_env() as client:
            return await call(client)

    return asyncio.run(run())


if __name__ == "__main__":
    main()
