"""The values that sending works with. Their ``repr`` shows no address, header, body or secret (P18)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from evidence.enums import Answer, Assurance, FailureClass, Product


@dataclass(frozen=True, slots=True)
class ConnectorSettings:
    """What an administrator configured. ``*_ref`` are references (``env:NAME``), never values.

    ``headers`` and ``options`` (settings of the product) are public. ``allow_networks`` are the private networks
    this connector may reach, as CIDR strings; ``ca_pem`` certificates of authorities it trusts instead of the
    public ones; ``proxy_url`` the HTTP proxy it goes through. ``timeout_s`` bounds one send from its first
    socket to the end of the answer.
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
    signing_ref: str = field(default="", repr=False)
    previous_signing_ref: str = field(default="", repr=False)
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ca_pem: str = field(default="", repr=False)
    proxy_url: str = field(default="", repr=False)
    proxy_authorization_ref: str = field(default="", repr=False)
    title: str = ""
    index: str = ""
    service: str = ""
    allow_networks: tuple[str, ...] = field(default=(), repr=False)
    timeout_s: float = 10.0
    max_concurrency: int = 4

    def option(self, name: str) -> str:
        """The product's option of this name; empty when it is not set."""
        return dict(self.options).get(name, "")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What would go on the wire. Both header tuples are sorted by name, so equal input gives equal bytes.

    ``secrets`` are values by name that the product needs when it sends (``token``, ``signing``,
    ``previous_signing``, ``proxy_authorization``): what they become depends on the moment, or is no header.
    """

    url: str = field(repr=False)
    public_headers: tuple[tuple[str, str], ...] = field(repr=False)
    secret_headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    content_type: str
    secrets: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """How a product is asked whether a message arrived: a read, in HTTP.

    ``answered`` says of status and body: True, it is there; False, it is not; a failure class when the answer
    says neither. ``reference`` reads from a body that says yes under which ``SYSTEM:KEY`` people find it there;
    empty when it has none.
    """

    method: str
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    answered: Callable[[int, bytes], bool | FailureClass]
    reference: Callable[[bytes], str] = lambda _body: ""


@dataclass(frozen=True, slots=True)
class SendSpec:
    """One order to the sender. ``token`` is the caller's and comes back on the receipt.

    ``retries`` (0 to 5) are further tries after failures before any byte left; they share ``timeout_s``.
    Waiting for a slot does not count towards ``timeout_s``; ``not_after`` (``time.monotonic()``) is the
    latest moment at which a first socket may open. With a ``question`` nothing is sent: its URL, headers and
    body are the order's, and the receipt says what was ``found``.
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
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secrets: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ca_pem: str = field(default="", repr=False)
    proxy_url: str = field(default="", repr=False)
    question: Question | None = field(default=None, repr=False)

    def secret(self, name: str) -> str:
        """The secret of this name; empty when there is none."""
        return dict(self.secrets).get(name, "")

    def option(self, name: str) -> str:
        """The product's option of this name; empty when it is not set."""
        return dict(self.options).get(name, "")

    def header(self, name: str) -> str:
        """The value of a header, by its name in lower case; empty when there is none."""
        return next((value for key, value in self.headers if key.lower() == name), "")


@dataclass(frozen=True, slots=True, repr=False)
class Diagnostics:
    """Where a send really went, and how long its parts took: kept for a time, for who looks for a fault.

    ``host`` is what the last request was for, ``address`` and ``port`` the other end of its connection: the proxy's
    with ``through_proxy``. ``certificate_sha256`` (hex, of the DER form) is the certificate that was shown there.
    Durations are in milliseconds, None for what did not happen; ``connect_ms`` includes a proxy's CONNECT,
    ``first_byte_ms`` ends when the answer's head was read, ``total_ms`` covers every try.
    """

    host: str = ""
    through_proxy: bool = False
    address: str = ""
    port: int | None = None
    certificate_sha256: str = ""
    tls_version: str = ""
    resolve_ms: int | None = None
    connect_ms: int | None = None
    tls_ms: int | None = None
    first_byte_ms: int | None = None
    total_ms: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """What came of one ``SendSpec``; there is exactly one for each.

    ``answer`` is ``not_sent`` exactly when no byte left (``bytes_sent`` 0), and ``answered`` exactly when some
    did and a status was read. ``status_code`` is of HTTP, or a reply of SMTP, which may say no before anything of
    the content left. A send that was ``not_sent`` because its time was up or the sender stopped has no
    ``failure_class``: nothing was tried. ``may_have_arrived``: the
    receiver may hold the content, whatever else went wrong. ``bytes_sent`` counts head and body handed to the
    connection, ``sent_sha256`` covers the body. The excerpt (at most 1,024 characters, redacted) and
    ``answer_sha256`` are of at most 64 KiB that were read. ``retry_after_s`` is what the receiver asked for, at
    most a day. ``diagnostics`` is of the last try, None when nothing was tried; it goes into no record (P18).
    ``found`` and ``reference`` answer a question, which delivers nothing: None, it could not be told.
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
    bytes_sent: int = 0
    sent_sha256: str = ""
    answer_excerpt: str = ""
    answer_sha256: str = ""
    retry_after_s: int | None = None
    duration_ms: int = 0
    # Names alone: what was sent besides the body, for the record.
    header_names: tuple[str, ...] = ()
    diagnostics: Diagnostics | None = field(default=None, repr=False)
    found: bool | None = None
    reference: str = ""

    @property
    def delivered(self) -> bool:
        """Whether the receiver answered, and positively; of what never answers, whether everything was written."""
        answered = self.answer is Answer.ANSWERED or self.assurance is Assurance.WRITTEN
        return answered and self.assurance is not None and self.failure_class is None
