"""What pages and capsules say about a record in a line, apart from how it looks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evidence.documents import CONTRACT_KIND, KINDS, Kind
from evidence.domain import erasures, history
from evidence.models import Record

AUDIT_DELIVERY = "acknowledgement-audit-delivery-"

# A flag that is a kind's state, in words.
FLAGS = {
    ("delivery_success", True): "delivered",
    ("delivery_success", False): "failed",
    ("dry_run", True): "dry_run",
    ("dry_run", False): "live",
    ("observation", True): "observed",
    ("observation", False): "planned",
    ("done", True): "done",
    ("done", False): "taken back",
}


@dataclass(frozen=True)
class Line:
    """One record as lists and chains show it; ``payload`` is empty once the body was erased."""

    record: Record
    label: str
    state: str
    provider: str
    case: str
    actor: str
    claimed_actor: str
    payload: Mapping[str, Any]
    # When and how its body was erased; empty while it is there.
    erased: str = ""

    @property
    def why(self) -> str:
        """The sentence or class that explains it, as far as the record has one."""
        for name in ("reason", "skip_reason", "failure_class", "notes"):
            if value := self.payload.get(name):
                return str(value)
        return ""


def line(record: Record, *, about: str = "") -> Line:
    """What is said about a stored record; ``about`` is the case whose chain it stands in, if any."""
    return lines([record], about=about)[0]


def lines(found: Sequence[Record], *, about: str = "") -> list[Line]:
    """The same for several, in their order; the number of queries does not depend on how many."""
    gone = erasures.erased(found)
    return [
        _line(record, shown, about, gone[record.index].sentence if record.index in gone else "")
        for record, shown in zip(found, history.envelopes(found, gone), strict=True)
    ]


def _line(record: Record, shown: Mapping[str, Any], about: str, erased: str) -> Line:
    kind = KINDS[record.kind]
    payload = shown.get(kind.payload_key, {})
    cases = shown.get("cases", [])
    return Line(
        record=record,
        label=kind_label(record.kind),
        state=_outcome(payload, about) or state(kind, payload),
        provider=_providers(payload),
        case=cases[0] if len(cases) == 1 else "",
        actor=shown.get("signer", ""),
        claimed_actor=shown.get("claimed_actor", ""),
        payload=payload,
        erased=erased or ("Body missing: no erasure says why" if record.body is None else ""),
    )


def kind_label(name: str) -> str:
    """A kind in words: what the contract puts in front of every kind of the chain says nothing to a reader."""
    short = name.removeprefix(CONTRACT_KIND).removeprefix("release-")
    deep = short.removeprefix(AUDIT_DELIVERY)
    return (deep if "-" in deep else short).removeprefix("acknowledgement-").replace("-", " ").capitalize()


def state(kind: Kind, payload: Mapping[str, Any]) -> str:
    """The state that a kind's records report, else how loudly they ask for somebody, else nothing."""
    name = (kind.state_fields or ("alert_level",))[-1]
    value = payload.get(name, "")
    return FLAGS[name, value] if isinstance(value, bool) else str(value)


def _outcome(payload: Mapping[str, Any], case: str) -> str:
    """What came of one case in a record that speaks of several; empty when it does not say."""
    return next(
        (one["outcome"] for one in payload.get("deliveries", []) if case and one.get("case") == case), ""
    )


def _providers(payload: Mapping[str, Any]) -> str:
    found = payload.get("provider") or payload.get("providers") or payload.get("selected_providers") or ""
    if isinstance(found, str):
        return found
    return found[0] if len(found) == 1 else f"{len(found)} connectors"


@dataclass(frozen=True)
class Fact:
    """One field of a record: a value in one line, or ``code`` of several."""

    name: str
    value: str = ""
    code: str = ""


def facts(payload: Mapping[str, Any]) -> list[Fact]:
    """A record's fields in its own order; what is nested as indented JSON."""
    return [
        Fact(name, code=json.dumps(value, indent=2, ensure_ascii=False))
        if _is_nested(value)
        else Fact(name, value=_shown(value))
        for name, value in payload.items()
    ]


def _is_nested(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value)
    return isinstance(value, list) and any(isinstance(item, dict | list) for item in value)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value)
    return "" if value in (None, {}) else str(value)
