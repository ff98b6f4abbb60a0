"""Lets a request out to allowed addresses only (the public internet's), and connects to the very one that was checked.

A name is resolved once, every address it has is checked, and the connection goes to one of those: what the name
resolves to a moment later does not matter. It holds for each hop of a redirect, because each makes its connection here.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable

import httpcore
import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[list[str]]]
Allowed = Callable[[Address], bool]

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# What `is_global` of some Python release lets through though it leads inside, nowhere, or to other addresses.
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",  # protocol assignments; a metadata service at Oracle
            "192.88.99.0/24",  # 6to4 relays
            "168.63.129.16/32",  # the metadata and health service of Azure
            "64:ff9b:1::/48",  # local NAT64
            "100::/64",  # discarded
            "3fff::/20",  # documentation
            "5f00::/16",  # segment routing
        ),
    )
)


class ForbiddenAddressError(httpx.RequestError):
    """A name leads to an address that is not of the public internet."""


def is_public(address: Address) -> bool:
    """Tell whether an address belongs to the public internet; addresses that carry another are judged by that one."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    special = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    listed = any(address in network for network in _NOT_PUBLIC)
    return address.is_global and not special and not address.is_link_local and not listed


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    low = int(address) & 0xFFFF_FFFF
    if address in _NAT64 or int(address) >> 32 == 0:  # NAT64, and the old IPv4-compatible form ::a.b.c.d
        return ipaddress.IPv4Address(low)
    return None


async def resolve(host: str, port: int) -> list[str]:
    """Resolve a name with the system's resolver; raises OSError where it has no address.

    In a thread of its own, which nobody waits for at the end: the loop's few threads run the graphs' sync tools, and
    names whose server never answers would hold them all.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def tell(addresses: list[str], error: Exception | None) -> None:
        if found.done():  # cancelled: it took too long
            return
        if error is None:
            found.set_result(addresses)
        else:
            found.set_exception(error)

    def look_up() -> None:
        addresses: list[str] = []
        error: Exception | None = None
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except Exception as raised:  # noqa: BLE001 - the boundary of a thread: it is raised where it is awaited
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(tell, addresses, error)

    threading.Thread(target=look_up, name="threadline-resolve", daemon=True).start()
    return await found


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects only to addresses that are ``allowed``; ``resolver`` is replaced in tests alone."""

    def __init__(self, resolver: Resolver = resolve, allowed: Allowed = is_public) -> None:
        self._resolver, self._allowed = resolver, allowed
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's own signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check every address, connect to the first that answers.

        Raises:
            ForbiddenAddressError: one of the addresses is not allowed.

        """
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in await self._checked(host, port):
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")

    async def sleep(self, seconds: float) -> None:
        """Wait, as httpcore asks between attempts."""
        await asyncio.sleep(seconds)

    async def _checked(self, host: str, port: int) -> list[str]:
        try:
            addresses = await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name {host} was not found") from error
        for address in addresses:
            if not self._allowed(ipaddress.ip_address(address.split("%", 1)[0])):
                raise ForbiddenAddressError(f"{host} is not a public address")
        return addresses


class GuardedTransport(httpx.AsyncHTTPTransport):
    """httpx's transport over connections that ``GuardedBackend`` makes; proxies of the environment are not used."""

    def __init__(
        self,
        backend: GuardedBackend,
        *,
        ssl_context: ssl.SSLContext | None = None,
        connections: int = 10,
        idle_seconds: float | None = None,
    ) -> None:
        trusted = ssl_context or httpx.create_ssl_context(trust_env=False)
        super().__init__(verify=trusted, trust_env=False)
        # httpx has no public way to hand a network backend to its pool; a test holds that this one is really used.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=trusted,
            network_backend=backend,
            max_connections=connections,
            keepalive_expiry=idle_seconds,
        )
