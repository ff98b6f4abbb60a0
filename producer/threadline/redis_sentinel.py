"""A primary that Sentinels name: each new connection asks them, so that a failover moves every client by itself."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialBackoff, NoBackoff

__all__ = ["SentinelAddress", "connect_sentinel", "is_sentinel_url"]

_URL: Final = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?:(?P<user>[^@/?#]*)@)?(?P<hosts>[^@/?#]+)"
    r"/(?P<master>[^/?#]+)(?:/(?P<db>\d*))?(?:\?(?P<query>[^#]*))?",
    re.IGNORECASE,
)
_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>\d{1,5}))?")
_DEFAULT_PORT: Final = 26379
_MOST: Final = 65_535
#: How redis-py shows the Sentinels that did not answer.
_SHOWN: Final = re.compile(r"<?\S*Redis\S*?\(<.*?host=(?P<host>[^,)]+),port=(?P<port>\d+).*?\)>\)>\)>")


class SentinelAddress(NamedTuple):
    """A `redis+sentinel://` URL, read: where the Sentinels are, what they call the primary, how to connect to each."""

    sentinels: list[tuple[str, int]]
    master: str
    tls: bool
    to_primary: dict[str, Any]
    to_sentinels: dict[str, Any]

    @classmethod
    def parse(cls, url: str) -> SentinelAddress:
        """Read `redis[s]+sentinel://[user:password@]host[:26379][,host…]/MASTER[/DB][?options]`.

        User, password, database and options (redis-py's) are the primary's; `sentinel_username` and
        `sentinel_password` are for the Sentinels; `rediss` and the `ssl_…` options are for both. Raises ValueError.
        """
        parts = _URL.fullmatch(url)
        if parts is None:
            raise ValueError("not redis+sentinel://host,host/MASTER")
        scheme, user = parts["scheme"].lower(), parts["user"]
        options: dict[str, Any] = dict(
            parse_url(
                f"{scheme}://{user + '@' if user is not None else ''}sentinel/{parts['db'] or 0}?{parts['query'] or ''}"
            )
        )
        for named in ("host", "port", "connection_class"):
            options.pop(named, None)
        login = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
        shared = {name: value for name, value in options.items() if name.startswith("ssl_")}
        return cls(
            [_host(text) for text in parts["hosts"].split(",")],
            unquote(parts["master"]),
            scheme == "rediss",
            options,
            {**shared, **login},
        )


def is_sentinel_url(url: str) -> bool:
    """Whether REDIS_URL names Sentinels; whether it is right is another question."""
    return url.partition("://")[0].lower().endswith("+sentinel")


def connect_sentinel(url: str, *, kind: type[Redis], **settings: Any) -> Any:
    """A client of the primary that connects on first use. Raises ValueError for a URL that cannot be read."""
    address = SentinelAddress.parse(url)
    # redis-py tries a connection again inside and around each answer of the Sentinels: two tries are four.
    settings["retry"] = settings.get("retry") or Retry(ExponentialBackoff(cap=0.5, base=0.05), 1)
    to_primary = {**settings, **address.to_primary}
    to_sentinels = {
        # One after the other is asked: one whose machine is gone must not hold the others up.
        "socket_timeout": 1.0,
        "socket_connect_timeout": 1.0,
        "retry": Retry(NoBackoff(), 0),
        **address.to_sentinels,
        "ssl": address.tls,
    }
    # The ignores: redis-py has no types here, nor for get_master_address.
    sentinels = Sentinel(address.sentinels, sentinel_kwargs=to_sentinels)  # type: ignore[no-untyped-call]
    return kind.from_pool(_Pool(address.master, sentinels, ssl=address.tls, **to_primary))  # type: ignore[no-untyped-call]


class _Pool(SentinelConnectionPool):
    """Keeps no connection to a Sentinel: they are asked at each new connection only, which is seldom."""

    async def get_master_address(self) -> tuple[str, int]:
        """Where the primary is now. Raises redis' errors; that of a missing primary says what was asked."""
        try:
            host, port = await super().get_master_address()  # type: ignore[no-untyped-call]
        except MasterNotFoundError as error:
            raise MasterNotFoundError(
                f"no Sentinel names a healthy primary {self.service_name!r}{_told(error)}"
            ) from error
        finally:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.connection_pool.disconnect(inuse_connections=False)
        return host, port


def _told(error: MasterNotFoundError) -> str:
    _, separator, told = str(error).partition(" : ")
    return " (" + _SHOWN.sub(r"\g<host>:\g<port>", told) + ")" if separator else ""


def _host(text: str) -> tuple[str, int]:
    parts = _HOST.fullmatch(text)
    port = int((parts and parts["port"]) or _DEFAULT_PORT)
    if parts is None or not 0 < port <= _MOST:
        raise ValueError("a Sentinel is host[:port]")
    return parts["v6"] or unquote(parts["name"]), port
