"""Evidence documents as bytes: canonical form, ids, hashes, and the view that readers get.

Stored bytes are RFC 8785 (JCS) with a nonce, so that a digest of a short document tells nothing about
it. Verification reads bytes and never re-serialises; a view is for reading only (P12).
"""

import hashlib
import json
import math
import re
import secrets
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import rfc8785

from evidence.documents import Kind
from evidence.domain import safety
from evidence.errors import InvalidInput
from evidence.models import Person, Record

DOCUMENT_VERSION = 1
PRODUCT = "CAVRA"
METADATA_SCHEMA = "cavra.evidence.metadata.v1"
# A seal entry stays under 40 KB; a larger set is several records under one set id.
MAX_CASES_PER_RECORD = 200
# Half a character: UTF-8 has no bytes for it.
_SURROGATE = re.compile("[\ud800-\udfff]")
# Search key of everything that names something: what a search without a filter's name looks under.
ANY = "any"
_NAMING = ("case", "external_ref", "manifest_digest", "event_digest")


@dataclass(frozen=True)
class Reference:
    """A record quoted by another one: where an id is quoted, its hash is too."""

    kind: str
    id: str
    hash: str

    def as_dict(self) -> dict[str, str]:
        """Plain form inside a document."""
        return {"kind": self.kind, "id": self.id, "hash": self.hash}


@dataclass(frozen=True)
class Passed:
    """What public safety objected to in a draft and somebody lets through, and why."""

    matches: tuple[safety.Match, ...]
    reason: str
    by: Person | None


@dataclass(frozen=True)
class Draft:
    """A built document that waits for its place in the log. ``passed`` becomes a record of its own there."""

    kind: Kind
    record_id: str
    body: bytes
    digest: str
    created_at: datetime
    keys: tuple[tuple[str, str], ...]
    cases: tuple[str, ...]
    state: str
    passed: Passed | None = None

    @property
    def reference(self) -> Reference:
        """How a later document quotes this one."""
        return Reference(self.kind.name, self.record_id, self.digest)

    @property
    def view(self) -> dict[str, Any]:
        """The document as readers will get it, before it has a place in the log."""
        return view(self.kind, self.body, self.digest)


def canonical(document: Any) -> bytes:
    """RFC 8785 bytes of ``document``.

    Numbers are integers up to 2**53 - 1 or decimals of at most three places, text (keys too) is NFC
    without lone surrogates; anything else is ``InvalidInput``, so that every reader of the bytes gets the
    same values. Types that JSON does not have are a mistake in a verb: ``rfc8785.CanonicalizationError``.
    """
    _refuse_unstable(document, "")
    return rfc8785.dumps(document)


def _refuse_unstable(value: Any, where: str) -> None:
    if isinstance(value, float):
        if not math.isfinite(value) or round(value, 3) != value or abs(value) > 2**53 - 1:
            raise InvalidInput(
                "Numbers have at most three decimal places.", code="number", errors={where: ["number"]}
            )
    elif isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > 2**53 - 1:
            raise InvalidInput("Integers reach to 2^53 - 1.", code="number", errors={where: ["number"]})
    elif isinstance(value, str):
        if not unicodedata.is_normalized("NFC", value) or _SURROGATE.search(value):
            raise InvalidInput(
                "Text is Unicode NFC without lone surrogates.", code="text", errors={where: ["text"]}
            )
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_unstable(key, where)
            _refuse_unstable(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_unstable(item, where)


def digest(data: bytes) -> str:
    """SHA-256 of ``data`` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def timestamp(moment: datetime) -> str:
    """``2026-06-01T10:30:00.000000+00:00``: UTC, always six fraction digits (CONTRACT)."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def mint_id(kind: Kind) -> str:
    """An opaque id: the kind's prefix and 16 random hex digits."""
    return f"{kind.prefix}-{secrets.token_hex(8)}"


def content_id(kind: Kind, content: Any) -> str:
    """An id from content (audit packages and delivery plans only): the same content, the same id."""
    return f"{kind.prefix}-{digest(canonical(content))[:16]}"


def draft(
    kind: Kind,
    record_id: str,
    payload: Mapping[str, Any],
    *,
    at: datetime,
    by: Person | None,
    cases: Iterable[str] = (),
    references: Iterable[Reference] = (),
    claimed_actor: str = "",
    sends: Mapping[str, Any] | None = None,
) -> Draft:
    """Build the document of ``kind`` about ``record_id``.

    ``payload`` holds exactly the kind's own fields; schema version, product, id and controls are added
    here. ``by`` is None only for what the service does by itself. ``sends`` is what will leave because of this
    document, looked at with it. Raises ``InvalidInput`` ``public_safety`` for text that may not be recorded (P18),
    ``ValueError`` when the payload's keys are not the kind's: that is a mistake in a verb, not in anybody's input.
    """
    cases = tuple(dict.fromkeys(cases))
    if len(cases) > MAX_CASES_PER_RECORD:
        raise ValueError(f"a record names at most {MAX_CASES_PER_RECORD} cases, not {len(cases)}")
    if payload.keys() != kind.own_fields.keys():
        raise ValueError(f"{kind.name}: keys differ: {sorted(payload.keys() ^ kind.own_fields.keys())}")
    judged = safety.judge(kind, payload, by_itself=by is None, claimed_actor=claimed_actor, sends=sends)
    full = {
        "schema_version": kind.schema_version,
        "product": PRODUCT,
        kind.id_field: record_id,
        **judged.payload,
        "controls": [*kind.controls, judged.control],
    }
    decisions, blocked, approvals = kind.counts(full)
    document = {
        "v": DOCUMENT_VERSION,
        "kind": kind.name,
        "id": record_id,
        "at": timestamp(at),
        "actor": {
            "person_id": by.person_id if by else "",
            "name": by.username if by else "system",
            "claimed": judged.claimed_actor,
        },
        "cases": list(cases),
        "references": [reference.as_dict() for reference in dict.fromkeys(references)],
        "counts": {"decisions": decisions, "blocked": blocked, "approvals": approvals},
        "payload": full,
        "nonce": secrets.token_hex(16),
    }
    body = canonical(document)
    return Draft(
        kind=kind,
        record_id=record_id,
        body=body,
        digest=digest(body),
        created_at=at,
        keys=tuple(search_keys(kind, document)),
        cases=cases,
        state=state_of(kind, document),
        passed=Passed(judged.passed, judged.reason, by) if judged.passed else None,
    )


def state_of(kind: Kind, document: Mapping[str, Any]) -> str:
    """The state a document is counted under; empty for kinds without one, ``a/b`` for several fields."""
    return "/".join(_text(document["payload"][name]) for name in kind.state_fields)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def values_at(value: Any, path: str) -> Iterator[Any]:
    """Every value that a dotted ``path`` reaches; lists on the way are walked."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from values_at(item, path)
    elif not path:
        yield value
    elif isinstance(value, Mapping):
        head, _, rest = path.partition(".")
        if head in value:
            yield from values_at(value[head], rest)


def search_keys(kind: Kind, document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """``(name, value)`` of every filter this document answers to, each once, in a fixed order.

    Derived from the bytes alone, so that ``verify_ledger`` can derive them again.
    """
    found: dict[tuple[str, str], None] = {("metadata_kind", kind.name): None}
    if kind.contract:
        found["history", "default"] = None
    for name, paths in kind.keys.items():
        for path in paths:
            for value in values_at(document["payload"], path):
                if value is None or value == "":
                    continue
                text = str(value).lower() if isinstance(value, bool) else str(value)
                found[name, text[:200]] = None
    for name, value in kind.fixed_keys:
        found[name, value] = None
    for case in document["cases"]:
        found["case", case] = None
    actor = document["actor"]
    for name in (actor["name"], actor["person_id"]):
        if name:
            found["actor", name] = None
    naming = [value for name, value in found if name in _NAMING or name.endswith("_id")]
    quoted = [reference["id"] for reference in document["references"]]
    for value in (document["id"], *naming, *quoted):
        found[ANY, any_value(value)] = None
    return list(found)


def any_value(value: str) -> str:
    """How an id or a reference is compared under ``ANY``: without regard to case."""
    return value.casefold()[:200]


def load(body: bytes | memoryview) -> dict[str, Any]:
    """The document inside stored bytes."""
    document: dict[str, Any] = json.loads(bytes(body))
    return document


def view(
    kind: Kind, body: bytes | memoryview | None, record_hash: str, index: int | None = None
) -> dict[str, Any]:
    """The envelope that the contract calls ``metadata`` (CONTRACT §1.4), for reading.

    ``index`` is the place in the log, when there is one. An erased body (None) leaves ids and hash.
    """
    if body is None:
        return {
            "schema_version": METADATA_SCHEMA,
            "product": PRODUCT,
            "metadata_kind": kind.name,
            "record_hash": record_hash,
            "leaf_index": index,
            "erased": True,
        }
    document = load(body)
    payload = {**document["payload"], kind.hash_field: record_hash}
    envelope: dict[str, Any] = {
        "schema_version": METADATA_SCHEMA,
        "product": PRODUCT,
        "session_id": document["id"],
        "created_at": document["at"],
        "signer": document["actor"]["name"],
        "decision_count": document["counts"]["decisions"],
        "blocked_count": document["counts"]["blocked"],
        "approval_required_count": document["counts"]["approvals"],
        "metadata_kind": kind.name,
        **{key: payload[key] for key in kind.promoted if key in payload},
        "cases": document["cases"],
        "references": document["references"],
        "record_hash": record_hash,
        "leaf_index": index,
    }
    if len(document["cases"]) == 1:
        envelope["case"] = document["cases"][0]
    if document["actor"]["claimed"]:
        envelope["claimed_actor"] = document["actor"]["claimed"]
    envelope[kind.payload_key] = payload
    return envelope


def payload_of(record: Record) -> dict[str, Any] | None:
    """The payload inside a stored record; None once its body was erased."""
    return None if record.body is None else load(record.body)["payload"]


def by_ids(record_ids: Sequence[str]) -> dict[str, Record]:
    """Stored records by id; ids that name nothing are left out."""
    return {record.record_id: record for record in Record.objects.filter(record_id__in=record_ids)}
