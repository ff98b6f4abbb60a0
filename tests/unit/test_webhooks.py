"""What a worker reads for webhooks, when it tries again, how it signs, and what no receiver can make it do."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from support.receiver import AUTHORITY, SECRET, Receiver, receiving
from threadline.errors import ConfigurationError
from threadline_worker.webhooks.delivery import Delivery, signed_headers
from threadline_worker.webhooks.schedule import PAUSES, next_pause, retry_after_seconds
from threadline_worker.webhooks.sender import Answered, Refused, Sender, Unanswered
from threadline_worker.webhooks.settings import WebhookSettings

NOW = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
OTHER = "whsec_" + base64.b64encode(b"another secret of 30 bytes ...").decode()
DELIVERY = Delivery(
    "job.1", 3, 1, 0, "https://hooks.example/", "hooks.example", '{"type":"job.succeeded","ü":"\\u0000"}'
)


def allowing(entries: str) -> Any:
    return WebhookSettings.from_env({"THREADLINE_WEBHOOK_ALLOW": entries}).allow


@pytest.fixture(scope="module")
def plain() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def drained(receiver: Receiver) -> list[str]:
    """The paths that arrived."""
    return [receiver.next().path for _ in range(receiver.requests.qsize())]


# Settings


def test_secrets_and_allowed_addresses_are_read() -> None:
    found = WebhookSettings.from_env(
        {
            "THREADLINE_WEBHOOK_SECRETS": f" {SECRET}, {OTHER},",
            "THREADLINE_WEBHOOK_ALLOW": "Hooks.Internal, 10.1.2.3/16, ::1, fd00::/8",
        }
    )
    assert found.secrets == (SECRET, OTHER)
    assert found.allow.names("hooks.internal")
    assert found.allow.names("HOOKS.internal.")
    assert not found.allow.names("evil.hooks.internal")
    inside = ["10.1.255.255", "::1", "fd12::1", "::ffff:10.1.0.1"]
    assert [found.allow.holds(ipaddress.ip_address(address)) for address in inside] == [True] * 4
    assert not found.allow.holds(ipaddress.ip_address("10.2.0.1"))
    assert WebhookSettings.from_env({}) == WebhookSettings()


@pytest.mark.parametrize(
    "secret",
    [
        "whsec_",
        "whsec_c2hvcnQ=",
        "whsec_not base64!",
        "whsec_" + "é" * 32,
        SECRET.removeprefix("whsec_"),
        OTHER[:-2] + "?",
        "whsec_" + "A" * 200,
    ],
)
def test_a_secret_that_is_none_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ConfigurationError, match=r"THREADLINE_WEBHOOK_SECRETS: secret 2 of 2 is not whsec_") as caught:
        WebhookSettings.from_env({"THREADLINE_WEBHOOK_SECRETS": f"{SECRET},{secret}"})
    assert "echo whsec_$(openssl rand -base64 32)" in str(caught.value)
    for shown in (SECRET[6:], secret.removeprefix("whsec_")):
        assert not shown or shown not in str(caught.value)


@pytest.mark.parametrize("entry", ["10.0.0.0/99", "https://hooks.internal", "a b", "*.internal", "-x", "host:80"])
def test_an_allowed_address_that_is_none_is_refused(entry: str) -> None:
    with pytest.raises(ConfigurationError, match=r"neither a host's name nor a network: give hooks\.internal or"):
        allowing(entry)


# Schedule


def test_the_pauses_grow_over_three_days_with_jitter_and_an_end() -> None:
    for failures, pause in enumerate(PAUSES, 1):
        waits = {next_pause(failures) for _ in range(20)}
        assert len(waits) > 1
        assert all(wait is not None and pause <= wait <= pause * 1.1 for wait in waits)
    assert next_pause(len(PAUSES) + 1) is None
    assert list(PAUSES) == sorted(PAUSES)
    assert 3 * 86_400 < sum(PAUSES) < 4 * 86_400


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("120", 120),
        (" 7 ", 7),
        ("9" * 400, 86_400),
        ("-5", 0),
        ("1.5", 0),
        ("soon", 0),
        ("Fri, 20 Nov 2026 08:05:00 GMT", 300),
        ("Fri, 20 Nov 2026 08:05:00 -0000", 300),
        ("Fri, 20 Nov 2026 07:00:00 GMT", 0),
        ("Fri, 20 Nov 2099 07:00:00 GMT", 86_400),
        ("Fri, 99 Nov 99999 07:00:00 GMT", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_at_most_a_day(header: str | None, seconds: float) -> None:
    assert retry_after_seconds(header, NOW) == seconds


def test_retry_after_lengthens_a_pause_and_never_shortens_it() -> None:
    assert next_pause(1, "1000") == 1000
    assert (next_pause(4, "1") or 0) >= PAUSES[3]
    assert next_pause(len(PAUSES) + 1, "1") is None


# Signature


def test_every_secret_verifies_and_the_id_is_the_same_at_every_try() -> None:
    now = datetime.now(UTC)
    first = signed_headers(DELIVERY, [OTHER, SECRET], now)
    later = signed_headers(DELIVERY._replace(claims=9, attempts=4), [OTHER, SECRET], now + timedelta(seconds=5))
    for headers in (first, later):
        for secret in (SECRET, OTHER):
            assert Webhook(secret).verify(DELIVERY.payload, headers)["type"] == "job.succeeded"
    assert first["webhook-id"] == later["webhook-id"] == "job~1:3"
    assert int(later["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 5
    assert first["webhook-signature"] != later["webhook-signature"]
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(DELIVERY.payload + " ", first)


# Where it may go


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_private_address_is_never_reached(plain: Receiver, host: str, scheme: str) -> None:
    sender = Sender(allowing("hooks.internal, 10.0.0.0/8"))
    sent = await sender.post(f"{scheme}://{host}:{plain.port}/ok", b"{}", {})
    assert isinstance(sent, Refused), sent
    assert "THREADLINE_WEBHOOK_ALLOW" in sent.reason
    assert drained(plain) == []


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "10.0.0.1", "192.168.0.1", "fd00:ec2::254", "fe80::1", "::ffff:10.0.0.1", "::1"]
)
async def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    async def inside(_host: str, _port: int) -> list[str]:
        return ["93.184.216.34", address]

    sent = await Sender(allowing(""), resolver=inside).post("https://hooks.example/", b"{}", {})
    assert sent == Refused("the host leads to a private address: allow it with THREADLINE_WEBHOOK_ALLOW")


async def test_plain_http_is_refused_also_to_the_public_internet() -> None:
    async def outside(_host: str, _port: int) -> list[str]:
        return ["93.184.216.34"]

    sent = await Sender(allowing("10.0.0.0/8"), resolver=outside).post("http://hooks.example/", b"{}", {})
    assert isinstance(sent, Refused)
    assert "use https://" in sent.reason


@pytest.mark.parametrize("allow", ["127.0.0.0/8", "hooks.internal"])
async def test_what_is_allowed_is_reached_by_the_address_that_was_checked(plain: Receiver, allow: str) -> None:
    asked: list[str] = []

    async def rebinding(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    sender = Sender(allowing(allow), resolver=rebinding)
    sent = await sender.post(plain.url("/ok?x=1", "hooks.internal"), b"{}", {"webhook-id": "1"})
    await sender.aclose()
    assert sent == Answered(200)
    assert asked == ["hooks.internal"]
    received = plain.next()
    assert (received.path, received.headers["Host"]) == ("/ok?x=1", f"hooks.internal:{plain.port}")


async def test_a_host_in_letters_beyond_ascii_is_allowed_as_it_is_sent(plain: Receiver) -> None:
    async def here(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    sender = Sender(allowing("xn--bcher-kva.internal"), resolver=here)
    assert await sender.post(plain.url("/ok", "xn--bcher-kva.internal"), b"{}", {}) == Answered(200)
    await sender.aclose()
    assert drained(plain) == ["/ok"]


async def test_names_that_nobody_answers_for_hold_no_thread_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's default threads run the graphs' sync tools."""
    answer = threading.Event()

    def hanging(*_args: Any, **_more: Any) -> list[Any]:
        answer.wait(20)
        raise OSError("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    sender = Sender(allowing(""), total_seconds=0.5)
    lost = asyncio.gather(*(sender.post(f"https://{n}.example/", b"{}", {}) for n in range(3)))
    try:
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            sent = await lost
            assert await asyncio.to_thread(lambda: "a tool") == "a tool"
    finally:
        answer.set()
    assert sent == [Unanswered("no answer within 0.5 s")] * 3
    assert await sender.post("https://later.example/", b"{}", {}) == Unanswered(
        "ConnectError: the name later.example was not found"
    )
    await sender.aclose()


async def test_proxies_of_the_environment_are_no_way_around(plain: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{plain.port}")
    assert isinstance(await Sender(allowing("")).post("http://10.0.0.1/", b"{}", {}), Refused)
    assert drained(plain) == []


async def test_tls_is_verified_for_the_name_of_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    async def here(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    allow = allowing("127.0.0.1")
    with receiving(tls=True) as receiver:
        distrusting = Sender(allow, resolver=here)
        sent = await distrusting.post(receiver.url("/ok", "hooks.example"), b"{}", {})
        assert isinstance(sent, Unanswered)
        assert "certificate" in sent.reason
        monkeypatch.setenv("SSL_CERT_FILE", AUTHORITY)
        trusting = Sender(allow, resolver=here)
        assert await trusting.post(receiver.url("/ok", "hooks.example"), b"{}", {}) == Answered(200)
        other = await trusting.post(receiver.url("/ok", "other.example"), b"{}", {})
        assert isinstance(other, Unanswered)
        assert "other.example" in other.reason
        assert drained(receiver) == ["/ok"]
        await trusting.aclose()
        await distrusting.aclose()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authorities_that_cannot_be_read_are_a_configuration_error(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE or SSL_CERT_DIR"):
        Sender(allowing(""))


# What receivers do


async def test_hostile_receivers_have_an_outcome_in_time(plain: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadline_worker.webhooks.sender._BODY_SECONDS", 60.0)  # the size alone ends it
    sender = Sender(allowing("127.0.0.1"), total_seconds=3.0)
    before = time.monotonic()
    hang, endless, redirect, error, later, nobody, nowhere, garbled = await asyncio.gather(
        *(
            sender.post(plain.url(path), b"{}", {})
            for path in ("/hang", "/endless", "/redirect", "/status/500", "/later")
        ),
        sender.post("http://127.0.0.1:9/", b"{}", {}),
        sender.post(f"http://{'a' * 300}.example/", b"{}", {}),
        sender.post("http://127.0.0.1:x/", b"{}", {}),
    )
    assert time.monotonic() - before < 6
    assert hang == Unanswered("no answer within 3 s")
    assert endless == Answered(200, "x" * 200)
    assert isinstance(redirect, Answered)
    assert redirect.status == 302
    assert isinstance(error, Answered)
    assert (error.status, len(error.text), error.text[:23]) == (500, 200, "as you wish as you wish")
    assert later == Answered(503, "busy now", "1000")
    assert isinstance(nobody, Unanswered)
    assert isinstance(nowhere, Unanswered)
    assert isinstance(garbled, Refused)
    assert sorted(drained(plain)) == ["/endless", "/hang", "/later", "/redirect", "/status/500"]
    await sender.aclose()


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"not http at all\r\n\r\n", Unanswered),
        (b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 300_000, Unanswered),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", Answered),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Answered),
        (b"", Unanswered),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x00", Answered),
    ],
)
async def test_answers_that_are_none_are_an_outcome_too(raw: bytes, kind: type) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        sender = Sender(allowing("127.0.0.1"), total_seconds=5.0)
        assert isinstance(await sender.post(f"http://127.0.0.1:{port}/", b"{}", {}), kind)
        await sender.aclose()
