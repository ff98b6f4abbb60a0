"""Pages are fetched from the public internet only, from the address that was checked, within the limits."""

import ipaddress
import threading
from typing import Any

import pytest

from support.documents import pdf
from support.web import Answer, serving
from threadline_worker.agents.research.fetch import Fetcher, FetchError
from threadline_worker.outbound import Address, GuardedBackend, is_public, resolve

LOOPBACK = ipaddress.ip_address("127.0.0.1")
PAGE = (
    b"<html><head><title>On Pools</title></head><body><p>A pool keeps connections open for later use.</p></body></html>"
)


def to_loopback(*hosts: str) -> Any:
    """Resolve the named hosts to 127.0.0.1, which the backend allows; everything else as the system does."""

    async def resolver(host: str, port: int) -> list[str]:
        return ["127.0.0.1"] if host in hosts else await resolve(host, port)

    def allowed(address: Address) -> bool:
        return address == LOOPBACK or is_public(address)

    return GuardedBackend(resolver, allowed)


def to_addresses(*addresses: str, then: tuple[str, ...] = ()) -> Any:
    """Resolve any host to ``addresses`` once, then to ``then``; keeps how often it was asked."""
    asked: list[str] = []

    async def resolver(host: str, _port: int) -> list[str]:
        asked.append(host)
        return list(addresses if len(asked) == 1 or not then else then)

    return resolver, asked


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",  # noqa: S104 - what must be refused
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "168.63.129.16",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "2001:db8::1",
        "100::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0"])
async def test_a_server_on_this_machine_is_never_reached(host: str) -> None:
    with serving({"/": Answer(PAGE)}) as server:
        with pytest.raises(FetchError, match=r"not a public address|could not be reached"):
            await Fetcher().fetch(f"http://{host}:{server.port}/")
        assert server.seen == []


async def test_a_page_is_read_through_the_backend_that_was_given() -> None:
    with serving({"/pools": Answer(PAGE)}) as server:
        page = await Fetcher(to_loopback("docs.example")).fetch(f"http://docs.example:{server.port}/pools")
        assert server.seen == [("/pools", f"docs.example:{server.port}")]
    assert "keeps connections open" in page.text
    assert page.source["title"] == "On Pools"
    assert page.source["location"] == f"http://docs.example:{server.port}/pools"
    assert page.source["id"].startswith("W")


async def test_one_bad_address_among_good_ones_is_enough_to_refuse() -> None:
    resolver, _ = to_addresses("1.1.1.1", "10.0.0.1")
    with pytest.raises(FetchError, match="not a public address"):
        await Fetcher(GuardedBackend(resolver)).fetch("http://both.example/")


async def test_a_name_that_changes_its_mind_is_asked_once_and_the_checked_address_is_used() -> None:
    resolver, asked = to_addresses("127.0.0.1", then=("127.0.0.2",))
    with serving({"/": Answer(PAGE)}) as server:
        backend = GuardedBackend(resolver, lambda address: address == LOOPBACK)
        await Fetcher(backend).fetch(f"http://rebinding.example:{server.port}/")
        assert asked == ["rebinding.example"]
        with pytest.raises(FetchError, match="not a public address"):  # the next connection is checked anew
            await Fetcher(backend).fetch(f"http://rebinding.example:{server.port}/")
        assert len(server.seen) == 1


async def test_redirects_are_followed_and_each_is_checked() -> None:
    with serving({"/pools": Answer(PAGE)}) as server:
        server.answers["/a"] = Answer(status=302, headers={"Location": "/pools"})
        server.answers["/in"] = Answer(status=302, headers={"Location": f"http://127.0.0.1:{server.port}/secret"})
        server.answers["/meta"] = Answer(status=301, headers={"Location": "http://169.254.169.254/latest/meta-data/"})
        server.answers["/file"] = Answer(status=302, headers={"Location": "file:///etc/passwd"})
        server.answers["/loop"] = Answer(status=302, headers={"Location": "/loop"})
        base = f"http://docs.example:{server.port}"

        async def by_name_only(host: str, port: int) -> list[str]:
            return ["127.0.0.1"] if host == "docs.example" else ["10.0.0.1"]

        fetcher = Fetcher(GuardedBackend(by_name_only, lambda address: address == LOOPBACK))
        assert (await fetcher.fetch(f"{base}/a")).source["location"] == f"{base}/pools"
        for path, reason in (
            ("/in", "not a public address"),
            ("/meta", "not a public address"),
            ("/file", "not http or https"),
            ("/loop", "more than 5 times"),
        ):
            with pytest.raises(FetchError, match=reason):
                await fetcher.fetch(f"{base}{path}")
        assert ("/secret", f"127.0.0.1:{server.port}") not in server.seen
        assert [path for path, _ in server.seen].count("/loop") == 6


async def test_proxies_of_the_environment_are_no_way_around(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({"/": Answer(PAGE)}) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.port}")
        with pytest.raises(FetchError, match="not a public address"):
            await Fetcher().fetch("http://10.0.0.1/")
        assert server.seen == []


@pytest.mark.parametrize(
    "url", ["ftp://docs.example/", "file:///etc/passwd", "docs.example", "", "http://", "http://[::1", "javascript:x"]
)
async def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(FetchError):
        await Fetcher().fetch(url)


async def test_size_time_kind_and_status_have_limits() -> None:
    release = threading.Event()
    answers = {
        "/big": Answer([b"x" * 600, b"x" * 600], "text/plain"),
        "/slow": Answer(PAGE, release=release),
        "/image": Answer(b"GIF89a", "image/gif"),
        "/gone": Answer(b"", status=410),
        "/blank": Answer(b"<html></html>"),
        "/broken": Answer(b"%PDF-1.4 no", "application/pdf"),
        "/fine": Answer(b"A text of its own.", "text/plain"),
    }
    with serving(answers) as server:
        base = f"http://docs.example:{server.port}"
        fetcher = Fetcher(to_loopback("docs.example"), max_bytes=1000, total_seconds=10)
        for path, reason in (
            ("/big", "larger than 1000 bytes"),
            ("/image", "is image/gif; only HTML"),
            ("/gone", "answered 410"),
            ("/blank", "has no text"),
            ("/broken", "not a readable PDF"),
        ):
            with pytest.raises(FetchError, match=reason):
                await fetcher.fetch(f"{base}{path}")
        assert (await fetcher.fetch(f"{base}/fine")).text == "A text of its own."
        hurried = Fetcher(to_loopback("docs.example"), total_seconds=0.2)
        with pytest.raises(FetchError, match=r"took longer than 0\.2 seconds"):
            await hurried.fetch(f"{base}/slow")


async def test_a_pdf_is_read_page_by_page() -> None:
    with serving({"/paper.pdf": Answer(pdf("First.", "Second."), "application/pdf")}) as server:
        page = await Fetcher(to_loopback("docs.example")).fetch(f"http://docs.example:{server.port}/paper.pdf")
    assert page.text == "[page 1]\nFirst.\n\n[page 2]\nSecond."
