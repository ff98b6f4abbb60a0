"""docs/webhooks.md is what receivers are written from: its program runs, its numbers are the code's."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from support.markdown import ROOT, block, rows
from support.receiver import SECRET
from threadline_worker.webhooks import courier, schedule, sender
from threadline_worker.webhooks.delivery import Delivery, signed_headers

_DOCUMENT = "docs/webhooks.md"
_TEXT = " ".join((ROOT / _DOCUMENT).read_text(encoding="utf-8").split())
_SECONDS = {"s": 1, "min": 60, "h": 3600}


def test_the_receiver_takes_what_a_worker_signs_and_only_once(capsys: pytest.CaptureFixture[str]) -> None:
    program: dict[str, Any] = {}
    exec(compile(block(_DOCUMENT, "receive.py"), "receive.py", "exec"), program)  # noqa: S102 - that is the test
    payload = block(_DOCUMENT, "payload")
    headers = signed_headers(Delivery("j", 4, 1, 0, "", "", payload), [SECRET])
    assert [program["receive"](SECRET, headers, payload.encode()) for _ in range(2)] == [204, 204]
    assert capsys.readouterr().out == f"{json.loads(payload)['data']['job_id']} job.succeeded\n"
    assert program["receive"](SECRET, headers, payload.encode() + b" ") == 401


def test_the_schedule_is_the_codes() -> None:
    told = re.search(r"the first at once, then (.+?) after the one before", _TEXT)
    assert told
    pauses = [int(number) * _SECONDS[unit] for number, unit in re.findall(r"(\d+) (s|min|h)\b", told[1])]
    assert tuple(pauses) == schedule.PAUSES
    assert f"within {sender.TOTAL_SECONDS:g} s" in _TEXT
    assert f"Each worker sends {courier.SLOTS} at once, 4 to one host" in _TEXT


def test_every_field_of_the_payload_is_told() -> None:
    data = json.loads(block(_DOCUMENT, "payload"))["data"]
    named = {name for row in rows(_DOCUMENT, "field") for name in re.findall(r"`(\w+)`", row[0])}
    assert named <= {*data, "type", "timestamp"}
