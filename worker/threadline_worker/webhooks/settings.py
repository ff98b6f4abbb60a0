"""What the environment says of webhooks: secrets and allowed addresses, checked at the start and never shown."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping

import msgspec

from threadline.errors import ConfigurationError
from threadline_worker.outbound import Address

__all__ = ["Allowance", "WebhookSettings"]

_SECRETS = "THREADLINE_WEBHOOK_SECRETS"
_ALLOW = "THREADLINE_WEBHOOK_ALLOW"
_PREFIX = "whsec_"
#: Standard Webhooks' bounds for the key inside a secret.
_LEAST_BYTES, _MOST_BYTES = 24, 64
_HOST = re.compile(r"(?!-)[a-z0-9._-]{1,253}")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Allowance(msgspec.Struct, frozen=True):
    """Where a webhook may go besides https:// to the public internet: hosts by name, and networks."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    def names(self, host: str) -> bool:
        """Whether the host is allowed by its name, whatever address it has."""
        return host.lower().rstrip(".") in self.hosts

    def holds(self, address: Address) -> bool:
        """Whether the address is in an allowed network; an IPv4 address in IPv6 clothes is that IPv4 address."""
        plain = getattr(address, "ipv4_mapped", None) or address
        return any(plain in network for network in self.networks)


class WebhookSettings(msgspec.Struct, frozen=True):
    """`secrets` all sign, the newest first; without any, this worker holds deliveries for others."""

    secrets: tuple[str, ...] = ()
    allow: Allowance = Allowance()

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> WebhookSettings:
        """Read the environment. Raises ConfigurationError that names the variable, and never shows a secret."""
        return cls(_secrets(_listed(env, _SECRETS)), _allowance(_listed(env, _ALLOW)))


def _listed(env: Mapping[str, str], name: str) -> list[str]:
    return [entry.strip() for entry in env.get(name, "").split(",") if entry.strip()]


def _secrets(entries: list[str]) -> tuple[str, ...]:
    for number, entry in enumerate(entries, 1):
        if not (entry.startswith(_PREFIX) and _LEAST_BYTES <= _key_bytes(entry) <= _MOST_BYTES):
            raise ConfigurationError(
                f"{_SECRETS}: secret {number} of {len(entries)} is not {_PREFIX} followed by"
                f" {_LEAST_BYTES}-{_MOST_BYTES} bytes as base64: `echo {_PREFIX}$(openssl rand -base64 32)` makes one"
            )
    return tuple(entries)


def _key_bytes(entry: str) -> int:
    try:
        return len(base64.b64decode(entry.removeprefix(_PREFIX), validate=True))
    except ValueError:  # binascii.Error is one; characters beyond ASCII raise it plain
        return 0


def _allowance(entries: list[str]) -> Allowance:
    hosts, networks = set(), []
    for entry in entries:
        try:
            networks.append(ipaddress.ip_network(entry, strict=False))
        except ValueError as error:
            host = entry.lower().rstrip(".")
            if not _HOST.fullmatch(host):
                raise ConfigurationError(
                    f"{_ALLOW}: {entry!r} is neither a host's name nor a network: give hooks.internal or 10.1.0.0/16"
                ) from error
            hosts.add(host)
    return Allowance(frozenset(hosts), tuple(networks))
