"""TLS in front of an embedded server, whose wheels are built without it: what a managed service's proxy does.

Speaks TLS from the first byte (Redis), or after Postgres' SSLRequest, and passes on in the clear. The certificates are
made for the run: an authority, and a server certificate for `localhost`.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "TlsFront"]

_SSL_REQUEST: Final = (80877103).to_bytes(4, "big")
_DAY: Final = dt.timedelta(days=1)


class Authority:
    """`file` is what clients trust; `issue(name)` writes a server's certificate and key as one file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tests")])
        root = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
             "decipher_only", "digital_signature"), False
        )  # fmt: skip
        signing = x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage)
        identity = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        root = root.add_extension(signing, critical=True).add_extension(identity, critical=False)
        self.file = folder / "authority.pem"
        self.file.write_bytes(self._signed(root))

    def issue(self, host: str) -> Path:
        """A certificate for `host`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        made = (
            self._builder(subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file = self._folder / f"{host}.pem"
        file.write_bytes(self._signed(made) + secret)
        return file

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
        )

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class TlsFront:
    """`async with TlsFront(url, certificate) as front`: `front.port` speaks TLS for the server of `url`.

    `connections` counts those that were encrypted to the end of the handshake.
    """

    def __init__(self, url: str, certificate: Path) -> None:
        parts = urlsplit(url)
        self._upstream = (parts.hostname or "", int(parts.port or 0))
        self._postgres = parts.scheme.startswith("postgres")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0

    async def __aenter__(self) -> Self:
        context = None if self._postgres else self._context
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            if self._postgres:
                await self._upgrade(reader, writer)
            self.connections += 1
            behind, onward = await asyncio.open_connection(*self._upstream)
            try:
                await self._both_ways(reader, writer, behind, onward)
            finally:
                onward.close()
        except (OSError, asyncio.IncompleteReadError):
            pass  # a client that does not trust us, or has gone
        finally:
            writer.close()

    async def _upgrade(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer Postgres' wish for TLS; whoever does not wish is left standing."""
        asked = await reader.readexactly(8)
        if asked[4:] != _SSL_REQUEST:
            raise ConnectionError("not encrypted")
        writer.write(b"S")
        await writer.start_tls(self._context)

    async def _both_ways(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        behind: asyncio.StreamReader,
        onward: asyncio.StreamWriter,
    ) -> None:
        ways = {asyncio.create_task(_pass_on(reader, onward)), asyncio.create_task(_pass_on(behind, writer))}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65_536):
        writer.write(piece)
        await writer.drain()
