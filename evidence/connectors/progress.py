"""How far one order got; a transport writes it, the receipt is made of it."""

import hashlib
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from evidence.connectors.specs import Diagnostics


@dataclass(slots=True)
class Wire:
    """Where a try really went and when its parts began (``time.monotonic()``), for who looks for a fault.

    A part that did not happen has no time: a kept connection resolves, dials and shakes hands with nobody.
    """

    host: str = ""
    through_proxy: bool = False
    address: str = ""
    port: int | None = None
    certificate_sha256: str = ""
    tls_version: str = ""
    times: dict[str, float] = field(default_factory=dict)
    # Why an address was not dialled, in words.
    refused: str = ""
    # The connection itself, to end it by.
    transport: Any = None

    def mark(self, moment: str) -> None:
        """Note that a moment came: ``resolving``, ``resolved``, ``dialled``, ``handshake``, ``secured``,
        ``connected``, ``asked``, ``answered``. The first time counts.
        """
        self.times.setdefault(moment, time.monotonic())

    @property
    def dialled(self) -> bool:
        """Whether a socket was made for it: on a kept connection none is."""
        return "dialled" in self.times

    def reached(self, transport: Any) -> None:
        """Note who is at the other end of an asyncio transport."""
        self.transport = transport
        if peer := transport.get_extra_info("peername"):
            self.address, self.port = str(peer[0]), int(peer[1])
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            self.secured(tls)

    def secured(self, tls: Any) -> None:
        """Note what was shown in a handshake that is over (an ``ssl.SSLObject``)."""
        self.tls_version = tls.version() or ""
        self.certificate_sha256 = hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()

    def diagnostics(self, total_ms: int) -> Diagnostics:
        """The same as what is kept for a time."""
        return Diagnostics(
            host=self.host,
            through_proxy=self.through_proxy,
            address=self.address,
            port=self.port,
            certificate_sha256=self.certificate_sha256,
            tls_version=self.tls_version,
            resolve_ms=self._between("resolving", "resolved"),
            connect_ms=self._between("dialled", "handshake", "connected"),
            tls_ms=self._between("handshake", "secured"),
            first_byte_ms=self._between("asked", "answered"),
            total_ms=total_ms,
        )

    def _between(self, begin: str, *ends: str) -> int | None:
        """Milliseconds from one moment to the first of ``ends`` that came; None when either is missing."""
        end = next((self.times[name] for name in ends if name in self.times), None)
        return None if end is None or begin not in self.times else round((end - self.times[begin]) * 1000)


@dataclass(slots=True)
class Progress:
    """How far one order got. Written by the try, read when the receipt is made.

    ``bytes_sent`` counts what was handed to a connection of the content and of what frames it; a transport
    counts right before it writes, so that no written byte goes unnoticed. ``status`` and ``body`` are the
    answer, ``late`` headers that were made at the last moment; ``resolving``, ``authorizing`` (an access token is
    asked for) and ``wire``, which is about the last request, tell what a failure before that was.
    """

    started_at: datetime
    started: float
    tries: int = 0
    bytes_sent: int = 0
    resolving: bool = False
    authorizing: bool = False
    status: int | None = None
    retry_after_s: int | None = None
    body: bytearray = field(default_factory=bytearray)
    late: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    wire: Wire = field(default_factory=Wire)

    @classmethod
    def begin(cls) -> "Progress":
        """One that starts now."""
        return cls(started_at=datetime.now(UTC), started=time.monotonic())
