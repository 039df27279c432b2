"""The manifest: canonical bytes of exactly what would be sent, where, and under which policy (P5).

It is frozen with the approval entry, voted on by its digest, and built again from live rows in the claim.
A difference voids the entry; nothing is sent.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from evidence.connectors.credentials import Misconfigured
from evidence.connectors.specs import Prepared
from evidence.domain import attempts, commitments, records, sending
from evidence.domain.attempts import Known
from evidence.models import Attempt, Case, Connector, LedgerHead, Person
from recovery.domain.retry_policies import Policy
from recovery.models import ApprovalEntry, PossibleAttempt

MANIFEST_VERSION = 2

# What decides about the bytes on the wire and where they go. Title, limits and notes do not.
WIRE_FIELDS = (
    "key",
    "product",
    "url",
    "url_ref",
    "headers",
    "authorization_ref",
    "token_ref",
    "authorization_scheme",
    "api_key_ref",
    "api_key_header",
    "index",
    "service",
    "allow_networks",
    "required_approvals",
)
NEWER_WIRE_FIELDS = (
    "options",
    "signing_ref",
    "previous_signing_ref",
    "ca_pem",
    "proxy_url",
    "proxy_authorization_ref",
)


@dataclass(frozen=True)
class Terms:
    """What an approval is asked for under; frozen with the entry.

    ``immediate_by_operator`` says whether the person who executes may lift the delay (P9).
    """

    policy: Policy
    immediate_by_operator: bool
    required_approvals: int
    require_retry_ack: bool
    requested_by: Person
    not_before: datetime
    approve_by: datetime
    execute_within_minutes: int


def build(
    case: Case, attempt_no: int, tries: Sequence[Attempt], prepared: Prepared, terms: Terms, *, epoch: int
) -> dict[str, Any]:
    """The manifest of ``case``'s attempt ``attempt_no`` as it stands now.

    ``tries`` are all tries before it, the newest last; the manifest says what is known of each by now.
    ``prepared`` is what would go on the wire. Address and credential appear as keyed commitments only.
    """
    connector = case.connector
    known = attempts.what_is_known(tries)
    *earlier, previous = (_tried(attempt, known[attempt.pk]) for attempt in tries)
    possible = [_possible(one) for one in case.possible_attempts.all()]
    return {
        "v": MANIFEST_VERSION,
        "epoch": epoch,
        "case": case.case_id,
        "attempt_no": attempt_no,
        "audit_id": case.package.audit_id,
        "audit_hash": case.package.record_hash,
        "delivery_hash": case.plan.record_hash,
        "connector": connector.key,
        "connector_product": connector.product,
        "connector_commitment": _connector_commitment(connector),
        "method": "POST",
        "destination_commitment": _commit("destination", prepared.url),
        "credential_commitment": _commit("credential", _credentials(prepared)),
        "headers": dict(prepared.public_headers),
        "payload": {
            "sha256": records.digest(prepared.body),
            "size": len(prepared.body),
            "content_type": prepared.content_type,
        },
        "policy": terms.policy.as_dict(),
        "immediate_by_operator": terms.immediate_by_operator,
        "required_approvals": terms.required_approvals,
        "require_retry_ack": terms.require_retry_ack,
        "requested_by": terms.requested_by.person_id,
        "not_before": records.timestamp(terms.not_before),
        "approve_by": records.timestamp(terms.approve_by),
        "execute_within_minutes": terms.execute_within_minutes,
        "previous": previous,
        "earlier": earlier,
        # Only where there are any: what was approved before there could be stays as it is.
        **({"possible": possible} if possible else {}),
    }


def _credentials(prepared: Prepared) -> list[list[str]]:
    """Every secret that would be used, headers first."""
    return [list(pair) for pair in (*prepared.secret_headers, *prepared.secrets)]


def _possible(one: PossibleAttempt) -> dict[str, Any]:
    """A time in which the case may have been tried without anything here knowing of it (P25)."""
    return {
        "epoch": one.epoch,
        "since": records.timestamp(one.since),
        "until": records.timestamp(one.until),
        "record_id": one.record_id,
        "record_hash": one.record_hash,
    }


def _connector_commitment(connector: Connector) -> str:
    said = {name: getattr(connector, name) for name in WIRE_FIELDS}
    # What older connectors could not say counts only where it is said: their approvals stay good.
    return _commit(
        "connector", said | {name: value for name in NEWER_WIRE_FIELDS if (value := getattr(connector, name))}
    )


def connector_changed(entry: ApprovalEntry) -> bool:
    """Whether the connector was configured otherwise since the approval; also asked of a broken one."""
    approved: str = records.load(entry.manifest)["connector_commitment"]
    return approved != _connector_commitment(entry.connector)


def _tried(attempt: Attempt, known: Known) -> dict[str, Any]:
    """One earlier try and what is known of it by now."""
    return {
        "attempt_no": attempt.number,
        "attempt_id": attempt.attempt_id,
        "outcome": known.outcome.value,
        "failure_class": known.failure_class,
        "may_have_arrived": known.may_have_arrived,
        "known_by": known.source.value,
    }


def epoch() -> int:
    """The log's epoch: what was approved in one epoch is void in the next."""
    return LedgerHead.objects.values_list("epoch", flat=True).get()


def freeze(manifest: Mapping[str, Any]) -> tuple[bytes, str]:
    """Canonical bytes and digest of a manifest."""
    data = records.canonical(manifest)
    return data, records.digest(data)


def digest_of(entries: Iterable[ApprovalEntry]) -> str:
    """One digest over many requests: SHA-256 of their sorted manifest digests (RFC 8785 of the list)."""
    return records.digest(records.canonical(sorted(entry.manifest_digest for entry in entries)))


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the fields in which two manifests differ."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


@dataclass(frozen=True)
class Rebuilt:
    """The manifest as live rows give it now; ``changed`` names the fields that differ from the approved one."""

    prepared: Prepared
    digest: str
    changed: tuple[str, ...]


def rebuild(entry: ApprovalEntry, policy: Policy) -> Rebuilt:
    """Build an entry's manifest again, around its frozen body (which is hashed, never rendered).

    Raises ``Misconfigured`` when the connector cannot be used at all as it is configured now.
    """
    approved = records.load(entry.manifest)
    body = bytes(entry.body)
    tries = list(entry.case.attempts.order_by("number"))
    if not tries:
        raise ValueError(f"{entry.case} has an approval entry and no attempt")
    prepared = sending.address_body(
        entry.connector, body, approved["payload"]["content_type"], about=entry.case.case_id
    )
    now = build(
        entry.case,
        entry.case.attempt_count + 1,
        tries,
        prepared,
        Terms(
            policy=policy,
            immediate_by_operator=may_be_immediate(entry),
            # Both sides, so that a lowered requirement shows as much as a changed address.
            required_approvals=entry.connector.required_approvals,
            require_retry_ack=entry.require_retry_ack,
            requested_by=entry.requested_by,
            not_before=entry.not_before,
            approve_by=entry.approve_by,
            execute_within_minutes=entry.execute_within_minutes,
        ),
        epoch=epoch(),
    )
    data, digest = freeze(now)
    changed = differences(approved, now)
    # Columns that the claim goes by beside what live rows say.
    frozen = {"attempt_no": entry.attempt_no, "required_approvals": entry.required_approvals}
    changed = sorted({*changed, *(name for name, value in frozen.items() if approved.get(name) != value)})
    if bytes(entry.manifest) != data and not changed:
        changed = ["manifest"]
    if digest != entry.manifest_digest and not changed:
        changed = ["manifest_digest"]
    return Rebuilt(prepared, digest, tuple(changed))


def may_be_immediate(entry: ApprovalEntry) -> bool:
    """Whether what was approved lets the person who executes it lift the delay (P9)."""
    return bool(records.load(entry.manifest).get("immediate_by_operator", False))


def changed_fields(entry: ApprovalEntry, policy: Policy) -> tuple[str, ...]:
    """Fields that differ between what was frozen and what live rows say; a broken connector is a difference."""
    try:
        return rebuild(entry, policy).changed
    except Misconfigured as error:
        return (f"connector.{error.field}",)


def _commit(purpose: str, value: Any) -> str:
    return commitments.commit(purpose, records.canonical(value))
