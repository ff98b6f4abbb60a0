"""No statement of the ledger reads a whole table: the short form of `make bench ONLY=gauges`."""

from __future__ import annotations

from bench.gauges import filled, scraped, statements


async def test_no_statement_scans_a_table_and_a_scrape_shows_the_queue(database_url: str) -> None:
    async with filled(database_url, 20_000) as bench:
        [row] = await bench.sql("SELECT count(*) AS n FROM threadline.jobs")
        assert row["n"] == 20_250
        found = {**await statements(bench), **await scraped(bench)}
    assert {name: one.scans for name, one in found.items() if one.scans} == {}
    assert {"gauges", "enqueue", "claim", "dispatch_due", "expire", "scrape_that_asks"} < set(found)
