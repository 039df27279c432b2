"""How products are reached: one module per protocol, each with the same three calls."""

from typing import Protocol

from evidence.connectors.products.adapter import Fetch
from evidence.connectors.progress import Progress
from evidence.connectors.specs import SendSpec
from evidence.connectors.transports import http, smtp, syslog
from evidence.connectors.transports.names import Names
from evidence.enums import Transport


class Carrier(Protocol):
    """One protocol, used in the sender's loop alone."""

    async def exchange(self, spec: SendSpec, progress: Progress) -> None:
        """Send the order's content once and read the answer into ``progress``; raises what went wrong.

        Sockets are made for permitted addresses only (P19), and ``progress.bytes_sent`` grows before content is
        written. The caller bounds the time.
        """

    def fetcher(self, spec: SendSpec) -> Fetch:
        """What a product's hooks ask further questions with, under the same limits as the order."""

    async def close(self) -> None:
        """End every connection."""


def made() -> dict[Transport, Carrier]:
    """A fresh set, for one sender."""
    names = Names()
    return {
        Transport.HTTP: http.Http(names),
        Transport.SYSLOG: syslog.Syslog(names),
        Transport.SMTP: smtp.Smtp(names),
    }
