"""The frozen values that sending works with. Their ``repr`` shows no address, header or body (P18)."""

from dataclasses import dataclass, field
from datetime import datetime

from evidence.enums import Answer, Assurance, FailureClass, Product


@dataclass(frozen=True, slots=True)
class ConnectorSettings:
    """What an administrator configured. ``*_ref`` are references (``env:NAME``), never values.

    ``headers`` are fixed and public, ``allow_networks`` the private networks this connector may reach, as
    CIDR strings. ``timeout_s`` bounds one send from its first socket to the end of the answer.
    """

    key: str
    product: Product
    url: str = field(default="", repr=False)
    url_ref: str = field(default="", repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    authorization_ref: str = field(default="", repr=False)
    token_ref: str = field(default="", repr=False)
    authorization_scheme: str = field(default="Bearer", repr=False)
    api_key_ref: str = field(default="", repr=False)
    api_key_header: str = field(default="x-api-key", repr=False)
    title: str = ""
    index: str = ""
    service: str = ""
    allow_networks: tuple[str, ...] = field(default=(), repr=False)
    timeout_s: float = 10.0
    max_concurrency: int = 4


@dataclass(frozen=True, slots=True)
class Prepared:
    """What would go on the wire. Both header tuples are sorted by name, so equal input gives equal bytes."""

    url: str = field(repr=False)
    public_headers: tuple[tuple[str, str], ...] = field(repr=False)
    secret_headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    content_type: str


@dataclass(frozen=True, slots=True)
class SendSpec:
    """One order to the sender. ``token`` is the caller's and comes back on the receipt.

    ``retries`` (0 to 5) are further tries after failures before any byte left; they share ``timeout_s``.
    Waiting for a slot does not count towards ``timeout_s``; ``not_after`` (``time.monotonic()``) is the
    latest moment at which a first socket may open.
    """

    token: str
    connector: str
    product: Product
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    timeout_s: float
    retries: int = 0
    allow_networks: tuple[str, ...] = field(default=(), repr=False)
    max_concurrency: int = 4
    not_after: float | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What came of one ``SendSpec``; there is exactly one for each.

    ``answer`` is ``not_sent`` exactly when no byte left (``bytes_sent`` 0), and ``answered`` exactly when a
    status was read (``status_code`` set). A send that was ``not_sent`` because its time was up or the sender
    stopped has no ``failure_class``: nothing was tried. ``may_have_arrived``: the receiver may hold the
    content, whatever else went wrong. ``bytes_sent`` counts head and body handed to the connection,
    ``sent_sha256`` covers the body. The excerpt (at most 1,024 characters, redacted) and ``answer_sha256``
    are of at most 64 KiB that were read. ``retry_after_s`` is what the receiver asked for, at most a day.
    """

    token: str
    connector: str
    answer: Answer
    assurance: Assurance | None
    may_have_arrived: bool
    failure_class: FailureClass | None
    status_code: int | None
    error: str
    tries: int
    started_at: datetime
    completed_at: datetime
    bytes_sent: int
    sent_sha256: str
    answer_excerpt: str
    answer_sha256: str
    retry_after_s: int | None
    duration_ms: int = 0
    # Names alone: what was sent besides the body, for the record.
    header_names: tuple[str, ...] = ()

    @property
    def delivered(self) -> bool:
        """Whether the receiver answered, and positively."""
        return self.answer is Answer.ANSWERED and self.assurance is not None and self.failure_class is None
