"""What a manifest says, in the words of the person who has to decide about it."""

from collections.abc import Iterable, Mapping
from typing import Any

from evidence.connectors.failures import PROPERTIES
from evidence.domain.attempts import Source
from evidence.enums import FailureClass
from recovery.domain import manifests

# Field of a manifest → what it is called. Digests and commitments are named, never shown: they tell a reader nothing.
FIELDS = {
    "v": "form of the manifest",
    "epoch": "epoch of the log",
    "case": "case",
    "attempt_no": "number of the attempt",
    "audit_id": "audit package",
    "audit_hash": "audit package",
    "delivery_hash": "delivery plan",
    "connector": "connector",
    "connector_product": "product of the connector",
    "connector_commitment": "configuration of the connector",
    "method": "method",
    "destination_commitment": "destination",
    "credential_commitment": "credential",
    "headers": "headers",
    "payload": "bytes to send",
    "policy": "retry policy",
    "immediate_by_operator": "whether the operator may lift the delay",
    "required_approvals": "approvals needed",
    "require_retry_ack": "whether the retry has to be acknowledged",
    "requested_by": "who asked",
    "not_before": "retry window",
    "approve_by": "time to approve",
    "execute_within_minutes": "time to execute",
    "previous": "what is known of the last try",
    "earlier": "what is known of earlier tries",
    "possible": "times in which a try may have been made that nothing is known of",
    "manifest": "manifest as it is stored",
    "manifest_digest": "digest of the manifest",
    "votes": "votes",
}
# What two tries of one case never share: their numbers, times and histories.
OWN = frozenset({"attempt_no", "requested_by", "not_before", "approve_by", "previous", "earlier", "possible"})


def field_words(names: Iterable[str]) -> list[str]:
    """What fields are called, each once; a field of a connector that cannot be used by its own name."""
    return list(dict.fromkeys(FIELDS.get(name, name.replace("_", " ").replace(".", ": ")) for name in names))


def unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In what two tries of one case differ beyond what is each one's own; empty when in nothing."""
    return field_words(name for name in manifests.differences(one, other) if name not in OWN)


def tries(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every earlier try as the manifest says it, the oldest first."""
    return [
        {
            "attempt_no": one["attempt_no"],
            "outcome": one["outcome"],
            "why": failure_words(one["failure_class"]),
            "may_have_arrived": one["may_have_arrived"],
            "attested": one["known_by"] == Source.ATTESTATION,
            "late": one["known_by"] == Source.LATE_ANSWER,
        }
        for one in (*manifest["earlier"], manifest["previous"])
    ]


def failure_words(failure_class: str) -> str:
    """A failure class in words; of none, nothing."""
    return PROPERTIES[FailureClass(failure_class)].label if failure_class else ""


def preview(body: bytes) -> str:
    """A body to be read: whatever a reader would not see, or not see in its place, as an escape."""
    return "".join(
        character
        if character == "\n" or character.isprintable()
        else character.encode("unicode_escape").decode()
        for character in body.decode(errors="backslashreplace")
    )
