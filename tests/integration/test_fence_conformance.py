"""F1: with its fence, the saver still is a LangGraph checkpointer in every respect that LangGraph's own suite knows."""

from __future__ import annotations

from typing import Any

import pytest

from support.desk import Desk, desk_on
from threadline.encryption.vault import PLAIN, Vault
from threadline_worker.checkpoints import Fence, FencedSaver

conformance = pytest.importorskip("langgraph.checkpoint.conformance", reason="langgraph-checkpoint-conformance")


class AnyThreadSaver(FencedSaver):
    """The suite makes up its threads: each gets a running job of its own, and every write its check."""

    desk: Desk
    known: dict[str, Fence]

    def _own(self, config: Any) -> None:
        self._fence = self.known[config["configurable"]["thread_id"]]
        super()._own(config)

    async def claim(self, thread_id: str) -> None:
        if thread_id not in self.known:
            claim = await self.desk.claim(thread_id)
            self.known[thread_id] = Fence(claim.job_id, thread_id, claim.epoch, claim.worker_id)

    async def aput(self, config: Any, *args: Any) -> Any:
        await self.claim(config["configurable"]["thread_id"])
        return await super().aput(config, *args)

    async def aput_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        await self.claim(config["configurable"]["thread_id"])
        await super().aput_writes(config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        await self.claim(thread_id)
        await super().adelete_thread(thread_id)


@pytest.mark.parametrize("vault", [PLAIN, Vault({"k": bytes(32)})], ids=["plain", "sealed"])
async def test_F1_the_fenced_saver_passes_langgraphs_conformance_suite(database_url, vault: Vault) -> None:
    async with desk_on(database_url) as desk:

        @conformance.checkpointer_test(name="FencedSaver")
        async def savers():
            saver = AnyThreadSaver(desk.checkpoints.pool, Fence("", "", 0, ""), desk.queries, vault=vault)
            saver.desk, saver.known = desk, {}
            yield saver

        report = await conformance.validate(savers)
    failures = {name: result.failures for name, result in report.results.items() if result.failures}
    assert report.passed_all_base(), failures
