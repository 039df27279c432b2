"""What a product's module says of its product; everything that differs between products is one of these fields."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from evidence.connectors.specs import ConnectorSettings, Question, SendSpec
from evidence.enums import Assurance, FailureClass, Transport

Headers = tuple[tuple[str, str], ...]
CREDENTIALS = ("authorization_ref", "token_ref", "api_key_ref")
# One more request on the order's own connections and under its limits: URL, body, headers → status and answer.
Fetch = Callable[[str, bytes, Headers], Awaitable[tuple[int, bytes]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A public setting that one product has: what the form calls it, and the pattern a value matches in full."""

    label: str
    help: str = ""
    pattern: str = r"[ -~]{1,200}"
    default: str = ""
    required: bool = False
    is_url: bool = False  # a destination too: https, and by the rules of one


def bearer(_settings: ConnectorSettings, token: str) -> str:
    """The token behind the scheme that the connector names."""
    return f"{_settings.authorization_scheme or 'Bearer'} {token}"


def own_address(_settings: ConnectorSettings, url: str) -> str:
    """The configured address is where it goes."""
    return url


def below(path: str) -> Callable[[ConnectorSettings, str], str]:
    """An address given without a path gets ``path``; one with a path is meant as it is."""

    def target(_settings: ConnectorSettings, url: str) -> str:
        parts = urlsplit(url)
        return url if parts.path.strip("/") else parts._replace(path=path).geturl()

    return target


def nothing_wrong(_settings: ConnectorSettings) -> list[tuple[str, str]]:
    """Settings that are fine one by one are fine together."""
    return []


def no_headers(_settings: ConnectorSettings, _message_id: str) -> Headers:
    """No headers of its own."""
    return ()


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that was answered; empty for anything else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def no_problem(_name: str, _value: str) -> str | None:
    """Any secret will do."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One product.

    ``render`` gives body and content type of an event for a message id: the same bytes for the same input, no
    secret in them; raises ``Refused`` for what the product would not take. ``recognise`` says what an answer
    (status, first 64 KiB) stands for. ``assurance`` is what a success of it is usually worth and ``earned`` says
    how, in a sentence.

    ``max_body`` is how many bytes of content it takes at most; ``limit`` says it where an option decides.
    ``target`` is the address that is posted to, from the configured one. ``headers`` are public headers of its
    own. ``credentials`` are the references it has a use for. ``authorization`` makes the Authorization header of
    the token; None: the product itself uses the token when it sends (``SendSpec.secret("token")``).
    ``secret_problem`` says what is wrong with such a late secret, by its name and value, without repeating it.

    Hooks that most products lack: ``complete`` puts secrets into the body at the last moment, ``sign`` gives
    headers that depend on the moment, ``authorize`` fetches headers before the content is sent and ``forget``
    drops what that kept, after a 401; ``confirm`` asks after the answer whether more than that is true.

    ``against`` gives what is wrong with settings beyond the form of each: field and sentence. ``mark`` says by
    what people find a message of this id at a receiver that does not show them its headers.

    ``against_asking`` says why it cannot be asked whether a message arrived; empty when ``question`` makes the
    question for a message id, from the configured address (as ``target`` gets it); the answer is to be had
    ``visible_after_s`` seconds after the try at the earliest. ``canary_sends`` is false when a test message would
    leave a ticket behind or wake somebody: then only the question is asked. ``opens_tickets``: whatever it gets
    becomes a ticket, so that it gets deliveries and nothing else.
    """

    render: Callable[[dict[str, Any], ConnectorSettings, str], tuple[bytes, str]]
    recognise: Callable[[int, bytes], Assurance | FailureClass]
    assurance: Assurance
    earned: str
    transport: Transport = Transport.HTTP
    schemes: tuple[str, ...] = ("https", "http")
    max_body: int = 2**20
    limit: Callable[[ConnectorSettings], int] | None = None
    target: Callable[[ConnectorSettings, str], str] = own_address
    secret_url: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)
    needs_credential: bool = False
    credentials: tuple[str, ...] = CREDENTIALS
    authorization: Callable[[ConnectorSettings, str], str] | None = bearer
    api_key_header: str = "x-api-key"
    signs: bool = False
    secret_problem: Callable[[str, str], str | None] = no_problem
    headers: Callable[[ConnectorSettings, str], Headers] = no_headers
    complete: Callable[[SendSpec], bytes] | None = None
    sign: Callable[[SendSpec, datetime], Headers] | None = None
    authorize: Callable[[SendSpec, Fetch], Awaitable[Headers]] | None = None
    forget: Callable[[SendSpec], None] | None = None
    confirm: Callable[[SendSpec, int, bytes, Fetch], Awaitable[Assurance | None]] | None = None
    against: Callable[[ConnectorSettings], list[tuple[str, str]]] = nothing_wrong
    mark: Callable[[ConnectorSettings, str], str] | None = None
    against_asking: tuple[str, ...] = ()
    question: Callable[[ConnectorSettings, str, str], Question] | None = None
    visible_after_s: int = 60
    canary_sends: bool = True
    opens_tickets: bool = False

    def most(self, settings: ConnectorSettings) -> int:
        """How many bytes of content the connector takes."""
        return self.limit(settings) if self.limit else self.max_body

    @property
    def credential_field(self) -> str:
        """The reference to ask for when a credential is needed and there is none."""
        return "token_ref" if "token_ref" in self.credentials else self.credentials[0]
