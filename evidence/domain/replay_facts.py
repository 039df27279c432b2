"""What the records of the evidence app say of its rows; ``evidence.domain.replay`` holds the rows against it."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import Q

from evidence.documents import (
    AUDIT_PACKAGE,
    CASE_CAPSULE,
    CONFIGURATION,
    CONNECTOR_BREAKER,
    CONNECTOR_CANARY,
    CONNECTOR_DELIVERY,
    CONNECTOR_TROUBLE,
    CONNECTOR_TROUBLE_END,
    CONNECTOR_TROUBLE_NOTICE,
    DELIVERY_PARKING,
    DELIVERY_PLAN,
    DELIVERY_RECONCILIATION,
    DELIVERY_RELEASE,
    DELIVERY_STREAM,
    DELIVERY_TAKEOVER,
    EPOCH,
    EPOCH_PROPOSAL,
    EPOCH_WITHDRAWAL,
    ERASURE,
    ERASURE_PROPOSAL,
    ERASURE_REFUSAL,
    GENESIS,
    LEDGER_ANCHOR,
    LEDGER_KEY,
    LEGAL_HOLD,
    LEGAL_HOLD_LIFT,
    NOTIFICATION_ACK,
    NOTIFICATION_PLAN,
    PERSON,
    PUBLIC_SAFETY_OVERRIDE,
    PUBLIC_SAFETY_REVIEW,
    ROLE,
    TRANSFER,
)
from evidence.domain import (
    attempts,
    breakers,
    configuration,
    drills,
    notes,
    records,
    retention_terms,
    troubles,
)
from evidence.domain.replay import ERASED, UNKNOWN, Apply, Document, Fold, Rule, Table
from evidence.enums import (
    Answer,
    BreakerState,
    CaseState,
    EpochState,
    ErasureState,
    KeyState,
    Outcome,
    Role,
    RouteState,
)
from evidence.models import Person

PERSONS = "evidence.Person"
GRANTS = "evidence.RoleGrant"
EDITS = "evidence.ConnectorEdit"
ANNOUNCED = "evidence.NotificationPlan"
ROUTES = "evidence.Route"
PACKAGES = "evidence.AuditPackage"
PLANS = "evidence.DeliveryPlan"
CASES = "evidence.Case"
ATTEMPTS = "evidence.Attempt"
KEYS = "evidence.LedgerKey"
ANCHORS = "evidence.Anchor"
EPOCHS = "evidence.EpochProposal"
STREAMS = "evidence.StreamHead"
PARKINGS = "evidence.Parking"
BREAKERS = "evidence.Breaker"
CANARIES = "evidence.Canary"
TROUBLES = "evidence.Trouble"
CAPSULES = "evidence.Capsule"
ERASURES = "evidence.Erasure"
ERASURE_ITEMS = "evidence.ErasureItem"
HOLDS = "evidence.LegalHold"
RETENTION = "evidence.RetentionRule"


def _groups(people: Sequence[Any]) -> Mapping[Any, Mapping[str, Any]]:
    """The groups that permission checks read, by person: they have to be the roles that were granted."""
    held: dict[Any, list[str]] = {pk: [] for pk in people}
    members = Person.groups.through.objects.filter(person_id__in=people)
    for pk, name in members.values_list("person_id", "group__name"):
        held[pk].append(name)
    return {pk: {"groups": sorted(names)} for pk, names in held.items()}


def _sha256(data: Any) -> str:
    return records.digest(data.encode() if isinstance(data, str) else bytes(data))


DOCUMENT = {"created_at": "created_at", "created_by": "created_by__person_id", "record_hash": "record_hash"}

TABLES = (
    Table(
        PERSONS,
        key=("person_id",),
        columns={
            "username": "username",
            "kind": "kind",
            "owner": "owner__person_id",
            "is_active": "is_active",
            "is_staff": "is_staff",
            "created_at": "created_at",
            "deactivated_at": "deactivated_at",
            "last_deactivated_at": "last_deactivated_at",
        },
        besides=_groups,
    ),
    Table(
        GRANTS,
        key=("person__person_id", "role"),
        numbered=True,
        whole=True,
        columns={
            "granted_at": "granted_at",
            "granted_by": "granted_by__person_id",
            "revoked_at": "revoked_at",
            "revoked_by": "revoked_by__person_id",
        },
    ),
    Table(
        EDITS,
        key=("connector__key",),
        numbered=True,
        whole=True,
        columns={"person": "person__person_id", "at": "at"},
    ),
    Table(
        ANNOUNCED,
        key=("plan_id",),
        columns={
            "schedule": "schedule__schedule_id",
            "status": "status",
            "alert_level": "alert_level",
            **DOCUMENT,
        },
    ),
    Table(
        ROUTES,
        key=("route_id",),
        columns={
            "plan": "plan__plan_id",
            "provider": "provider",
            "owner": "owner",
            "escalation_owner": "escalation_owner",
            "acknowledgement_minutes": "acknowledgement_minutes",
            "action": "action",
            "reason": "reason",
            "category": "category",
            "created_at": "created_at",
            "acknowledgement_state": "acknowledgement_state",
            "acknowledgement_id": "acknowledgement_id",
            "acknowledgement_hash": "acknowledgement_hash",
            "acknowledged_by": "acknowledged_by__person_id",
            "acknowledged_at": "acknowledged_at",
            "external_ref": "external_ref",
            "notes": "notes",
        },
    ),
    Table(PACKAGES, key=("audit_id",), columns={"content_hash": "content_hash", **DOCUMENT}),
    Table(PLANS, key=("delivery_id",), columns={"package": "package__audit_id", **DOCUMENT}),
    Table(
        CASES,
        key=("case_id",),
        case="case_id",
        columns={
            "plan": "plan__delivery_id",
            "package": "package__audit_id",
            "connector": "connector__key",
            "content_hash": "content_hash",
            "state": "state",
            "attempt_count": "attempt_count",
            "counted_attempts": "counted_attempts",
            "last_outcome_at": "last_outcome_at",
            "created_at": "created_at",
            "created_by": "created_by__person_id",
            "settled_at": "settled_at",
            "stream_seq": "stream_seq",
            "stream_prev": "stream_prev",
            "stream_digest": "stream_digest",
            "head_origin": "head_origin",
            "head_size": "head_size",
        },
    ),
    Table(
        PARKINGS,
        key=("case__case_id",),
        case="case__case_id",
        columns={
            "code": "code",
            "until": "until",
            "retries": "retries",
            "timeout_ms": "timeout_ms",
            "parked_at": "parked_at",
            "record_id": "record_id",
            "record_hash": "record_hash",
        },
    ),
    Table(
        BREAKERS,
        key=("connector__key",),
        columns={"state": "state", "opened_at": "opened_at", "changed_at": "changed_at"},
        # One that never opened only counts.
        only=Q(changed_at__isnull=False),
    ),
    Table(
        CANARIES,
        key=("canary_id",),
        columns={
            "connector": "connector__key",
            "by": "by__person_id",
            "means": "means",
            "outcome": "outcome",
            "failure_class": "failure_class",
            "status_code": "status_code",
            "duration_ms": "duration_ms",
            "started_at": "started_at",
            "ended_at": "ended_at",
            "record_hash": "record_hash",
        },
    ),
    Table(
        TROUBLES,
        key=("trouble_id",),
        columns={
            "connector": "connector__key",
            "since": "since",
            "failure_class": "failure_class",
            "waiting": "waiting",
            "through": "through",
            "announced_at": "announced_at",
            "record_hash": "record_hash",
            "told": "told",
            "ended_at": "ended_at",
            "told_end": "told_end",
        },
    ),
    Table(STREAMS, key=("connector__key",), columns={"seq": "seq", "digest": "digest"}),
    Table(
        CAPSULES,
        key=("capsule_id",),
        case="case_id",
        erasable=("content",),
        columns={
            "case_id": "case_id",
            "records": "records",
            "log_size": "log_size",
            "size": "size",
            "sha256": "sha256",
            "content": (lambda content: ERASED if content is None else _sha256(content), "content"),
            "created_at": "created_at",
            "created_by": "created_by__person_id",
            "record_hash": "record_hash",
        },
    ),
    Table(
        EPOCHS,
        key=("proposal_id",),
        columns={
            "old_origin": "old_origin",
            "origin": "origin",
            "epoch": "epoch",
            "reason": "reason",
            "known_origin": "known_origin",
            "known_size": "known_size",
            "known_root": "known_root",
            "first_lost_index": "first_lost_index",
            "proposed_by": "proposed_by__person_id",
            "proposed_through": "proposed_through__person_id",
            "proposed_at": "proposed_at",
            "record_hash": "record_hash",
            "state": "state",
            "decided_by": "decided_by__person_id",
            "decided_at": "decided_at",
        },
    ),
    Table(
        ATTEMPTS,
        key=("case__case_id", "number"),
        case="case__case_id",
        columns={
            name: name
            for name in (
                "attempt_id",
                "outcome",
                "answer",
                "assurance",
                "may_have_arrived",
                "failure_class",
                "status_code",
                "tries",
                "bytes_sent",
                "body_sha256",
                "answer_sha256",
                "retry_after_s",
                "started_at",
                "completed_at",
                "record_id",
                "record_hash",
            )
        },
    ),
    Table(
        KEYS,
        key=("name", "key_id"),
        columns={
            "public_key": (lambda name, key: notes.vkey(name, bytes(key)), "name", "public_key"),
            "state": "state",
            "introduced_at": "introduced_at",
            "ended_at": "ended_at",
            "reason": "reason",
        },
    ),
    Table(
        ANCHORS,
        key=("anchor_id",),
        columns={
            "origin": "origin",
            "size": "size",
            "root": (lambda root: bytes(root).hex(), "root"),
            "note": (_sha256, "note"),
            "means": "means",
            "place": "place",
            "administered_by": "administered_by",
            "attested_at": "attested_at",
            "proof": (_sha256, "proof"),
            "created_at": "created_at",
            "record_hash": "record_hash",
        },
    ),
    Table(
        ERASURES,
        key=("erasure_id",),
        columns={
            "legal_basis": "legal_basis",
            "reason": "reason",
            "rule": "rule__kind",
            # Of the records: what they let go was let go by two people who agreed on these terms.
            "rule_in_force": (bool, "rule__kind"),
            "proposed_by": "proposed_by__person_id",
            "proposed_through": "proposed_through__person_id",
            "proposed_at": "proposed_at",
            "proposal_id": "proposal_id",
            "proposal_hash": "proposal_hash",
            "state": "state",
            "decided_by": "decided_by__person_id",
            "decided_at": "decided_at",
        },
    ),
    Table(
        ERASURE_ITEMS,
        key=("erasure__erasure_id", "index"),
        columns={"record_id": "record_id", "kind": "kind", "digest": "digest"},
    ),
    Table(
        RETENTION,
        key=("kind",),
        columns={
            "terms": (retention_terms.kept, "keep_days", "legal_basis"),
            "enabled": "enabled",
            "edited_by": "edited_by__person_id",
            "edited_at": "edited_at",
            "confirmed_by": "confirmed_by__person_id",
            "confirmed_at": "confirmed_at",
            "confirmed_terms": "confirmed_terms",
        },
    ),
    Table(
        HOLDS,
        key=("hold_id",),
        columns={
            "scope": "scope",
            "reason": "reason",
            "placed_by": "placed_by__person_id",
            "placed_at": "placed_at",
            "record_hash": "record_hash",
            "lifted_by": "lifted_by__person_id",
            "lifted_at": "lifted_at",
        },
    ),
)

NOT_EVIDENCE = {
    "evidence.Checkpoint": {
        "created_at": "when the worker stored a head; what was signed has no time, its keeper's anchor has"
    },
    "evidence.LedgerHead": {
        "closed_to": "stops every append, the record of it too; every page of a closed database says so"
    },
    PERSONS: {
        "password": "a credential; that it was set is a record, its digest belongs into none",
        "last_login": "when a session began, kept by the sign-in",
        "full_name": "personal data for display, kept out of records; no rule judges by it",
        "email": "personal data for display, kept out of records; no rule judges by it",
    },
    BREAKERS: {
        "failures": "how many tries failed in a row; each of them is a record, and so is what it came to",
        "failure_class": "of the newest failure that counted; the record of the try says it",
        "probe_at": "when the next canary may go; moves with each canary that fails",
        "cool_down_s": "what the next canary waits for; doubles until something is delivered",
        "held_until": "what the receiver asked for with Retry-After; the record of the try says it",
    },
    CASES: {
        "lease_token": "tells a late receipt from another one's while a send is under way",
        "lease_until": "how long a send that is under way is waited for; the end of it is a record",
    },
}

# Their records say who changed which columns, and no values: some may be secret.
UNTOLD = (
    "evidence.Connector",
    "evidence.ConnectorWindow",
    "evidence.MaintenanceWindow",
    "evidence.PauseSwitch",
    "evidence.Schedule",
    "evidence.ScheduleOwner",
)

SILENT = {
    PUBLIC_SAFETY_OVERRIDE.name: "text was let through; there is no row beside the record that says so",
    PUBLIC_SAFETY_REVIEW.name: "somebody said what it was; overrides are read from the records alone",
    GENESIS.name: "the log's own first entry; the pass over the entries holds the head against it",
    TRANSFER.name: "the log as a whole was moved; no row became another one by it",
}


# --- people -----------------------------------------------------------------------------------------------------


def person(fold: Fold, document: Document) -> None:
    """A person was created, changed, deactivated or brought back."""
    said = document.payload
    key, change = said["person_id"], said["change"]
    named = {"username": said["person_name"], "kind": said["person_kind"], "owner": said["owner_id"]}
    if change == "created":
        fold.notes["roles", key] = set()
        fold.opens(
            PERSONS,
            key,
            **named,
            created_at=document.at,
            is_active=True,
            is_staff=False,
            deactivated_at="",
            last_deactivated_at="",
            groups=[],
        )
        return
    fold.says(PERSONS, key, **named)
    if change == "deactivated":
        fold.says(PERSONS, key, is_active=False, deactivated_at=document.at, last_deactivated_at=document.at)
    elif change == "activated":
        fold.says(PERSONS, key, is_active=True, deactivated_at="")


def role(fold: Fold, document: Document) -> None:
    """A role was granted or revoked; the groups that permissions hang on follow."""
    said = document.payload
    key, granted = (said["person_id"], said["role"]), said["change"] == "granted"
    if granted:
        grant = (*key, fold.count(GRANTS, *key))
        fold.opens(
            GRANTS, grant, granted_at=document.at, granted_by=document.by, revoked_at="", revoked_by=""
        )
    else:
        grant = (*key, fold.counted(GRANTS, *key))
        fold.says(GRANTS, grant, revoked_at=document.at, revoked_by=document.by)
    held = fold.notes.get(("roles", said["person_id"]))
    if held is not None:
        held.add(said["role"]) if granted else held.discard(said["role"])
        fold.says(PERSONS, said["person_id"], groups=sorted(held), is_staff=Role.ADMINISTRATOR in held)


def principal(fold: Fold, person_id: str) -> Any:
    """The human who answered for an account at this moment."""
    owner = fold.value(PERSONS, person_id, "owner")
    return owner if owner is UNKNOWN else owner or person_id


def configured(fold: Fold, document: Document) -> None:
    """Somebody changed what is configured; each subject that the records tell has a rule of its own."""
    if subject := CONFIGURED.get(document.payload["subject"]):
        subject(fold, document)


def _connector(fold: Fold, document: Document) -> None:
    """What a connector sends or where is another: who changed that does not vote on what depends on it."""
    said = document.payload
    on_wire = set(said["changed_fields"]) - configuration.CONNECTOR_NOT_ON_WIRE
    if document.by and on_wire:
        edit = (said["subject_id"], fold.count(EDITS, said["subject_id"]))
        fold.opens(EDITS, edit, person=principal(fold, document.by), at=document.at)


def _retention(fold: Fold, document: Document) -> None:
    """A retention rule was edited, or its terms were confirmed by somebody else."""
    said, kind = document.payload, document.payload["subject_id"]
    if said["change"] == "confirmed":
        confirmer = principal(fold, document.by)
        fold.says(
            RETENTION,
            kind,
            terms=said["reason"],
            confirmed_by=confirmer,
            confirmed_at=document.at,
            confirmed_terms=retention_terms.digest(kind, said["reason"]),
        )
        fold.notes["agreed", kind] = (said["reason"], _differ(fold.notes.get(("editor", kind)), confirmer))
        return
    enabled, terms = retention_terms.told(said["reason"])
    if said["change"] == "created":
        fold.opens(RETENTION, kind, confirmed_by="", confirmed_at="", confirmed_terms="")
    fold.says(RETENTION, kind, terms=terms, enabled=enabled, edited_by=document.by, edited_at=document.at)
    fold.notes["editor", kind] = principal(fold, document.by) if document.by else ""


def _differ(editor: Any, confirmer: Any) -> Any:
    """Whether an edit and its confirmation were two people's; ``UNKNOWN`` when one of them cannot be told."""
    return UNKNOWN if editor in (None, UNKNOWN) or confirmer is UNKNOWN else editor != confirmer


def _in_force(fold: Fold, kind: str, terms: str) -> Any:
    """Whether two people agreed on these terms of a rule, and it was on with them; ``UNKNOWN`` as ``Fold.value``."""
    agreed, two_people = fold.notes.get(("agreed", kind), (UNKNOWN, UNKNOWN))
    stands, enabled = fold.value(RETENTION, kind, "terms"), fold.value(RETENTION, kind, "enabled")
    held = [
        agreed if agreed is UNKNOWN else agreed == terms,
        two_people,
        stands if stands is UNKNOWN else stands == terms,
        enabled,
    ]
    if False in held:
        return False
    # Nothing is missing from a fold that began with the first record.
    return (False if fold.whole else UNKNOWN) if UNKNOWN in held else True


# What saving a row of a kind says, by the subject that its records name.
CONFIGURED = {"connector": _connector, "retentionrule": _retention}


# --- the log's keys and heads -----------------------------------------------------------------------------------


def key(fold: Fold, document: Document) -> None:
    """A key may sign heads from now on, or may not any more."""
    said = document.payload
    subject = (said["name"], said["key_id"])
    if said["change"] == "introduced":
        fold.opens(
            KEYS,
            subject,
            public_key=said["vkey"],
            state=KeyState.ACTIVE.value,
            introduced_at=document.at,
            ended_at="",
            reason="",
        )
    else:
        fold.says(KEYS, subject, state=said["change"], ended_at=document.at, reason=said["reason"])


def anchored(fold: Fold, document: Document) -> None:
    """A signed head is held outside."""
    said = document.payload
    fold.opens(
        ANCHORS,
        document.record_id,
        origin=said["origin"],
        size=said["size"],
        root=said["root_hash"],
        note=said["note_sha256"],
        means=said["means"],
        place=said["place"],
        administered_by=said["administered_by"],
        attested_at=said["attested_at"],
        proof=said["proof_sha256"],
        created_at=document.at,
        record_hash=document.digest,
    )


_PROPOSED = (
    "old_origin",
    "origin",
    "epoch",
    "reason",
    "known_origin",
    "known_size",
    "known_root",
    "first_lost_index",
)


def epoch_proposed(fold: Fold, document: Document) -> None:
    """Somebody proposed that the log goes on as a new one."""
    fold.opens(
        EPOCHS,
        document.record_id,
        **{name: document.payload[name] for name in _PROPOSED},
        proposed_by=principal(fold, document.by),
        proposed_through=document.by,
        proposed_at=document.at,
        record_hash=document.digest,
        state=EpochState.PROPOSED.value,
        decided_by="",
        decided_at="",
    )


def epoch_decided(state: EpochState) -> Apply:
    """Another person confirmed it, or it was withdrawn."""

    def apply(fold: Fold, document: Document) -> None:
        fold.says(
            EPOCHS,
            document.payload["proposal_id"],
            state=state.value,
            decided_by=principal(fold, document.by),
            decided_at=document.at,
        )

    return apply


# --- drills -----------------------------------------------------------------------------------------------------


def of_document(document: Document) -> dict[str, Any]:
    """Columns that every row of a document has."""
    return {"created_at": document.at, "created_by": document.by, "record_hash": document.digest}


def announced(fold: Fold, document: Document) -> None:
    """Who is told about a drill."""
    said = document.payload
    plan = document.record_id
    fold.opens(
        ANNOUNCED,
        plan,
        schedule=said["schedule_id"],
        status=said["status"],
        alert_level=said["alert_level"],
        **of_document(document),
    )
    for route in said["route_decisions"]:
        fold.opens(
            ROUTES,
            drills.route_id(plan, route["schedule_id"], route["provider"], route["owner"]),
            plan=plan,
            provider=route["provider"],
            owner=route["owner"],
            escalation_owner=route["escalation_owner"],
            acknowledgement_minutes=route["acknowledgement_minutes"],
            action=route["action"],
            reason=route["reason"],
            category=route["category"],
            created_at=document.at,
            acknowledgement_state=RouteState.OUTSTANDING.value,
            acknowledgement_id="",
            acknowledgement_hash="",
            acknowledged_by="",
            acknowledged_at="",
            external_ref="",
            notes="",
        )


def acknowledged(fold: Fold, document: Document) -> None:
    """An owner's answer; the newest one counts."""
    said = document.payload
    for route in said["route_ids"]:
        fold.says(
            ROUTES,
            route,
            acknowledgement_state=said["acknowledgement_state"],
            acknowledgement_id=document.record_id,
            acknowledgement_hash=document.digest,
            acknowledged_by=document.by,
            acknowledged_at=document.at,
            external_ref=said["external_ref"],
            notes=said["notes"],
        )


# --- deliveries -------------------------------------------------------------------------------------------------


def packaged(fold: Fold, document: Document) -> None:
    """A package was frozen."""
    content = records.digest(records.canonical(document.payload["routes"]))
    fold.opens(PACKAGES, document.record_id, content_hash=content, **of_document(document))


def planned(fold: Fold, document: Document) -> None:
    """A delivery plan was opened, and a case for each connector, about to be sent for the first time."""
    said, plan = document.payload, document.record_id
    fold.opens(PLANS, plan, package=said["audit_id"], **of_document(document))
    for case in document.cases:
        fold.opens(
            CASES,
            case,
            plan=plan,
            package=said["audit_id"],
            connector=case.removeprefix(f"{plan}."),
            content_hash=fold.value(PACKAGES, said["audit_id"], "content_hash"),
            state=CaseState.SENDING.value,
            attempt_count=0,
            counted_attempts=0,
            last_outcome_at="",
            created_at=document.at,
            created_by=document.by,
            settled_at="",
        )
        # Plans of old told no place in a stream; the row that ends the stream is there all the same.
        fold.says(STREAMS, case.removeprefix(f"{plan}."))


def placed(fold: Fold, document: Document) -> None:
    """Which places the cases of a plan got in their connectors' streams."""
    said = document.payload
    for place in said["places"]:
        fold.says(
            CASES,
            place["case"],
            stream_seq=place["seq"],
            stream_prev=place["previous"],
            stream_digest=place["digest"],
            head_origin=said["head_origin"],
            head_size=said["head_size"],
        )
        fold.says(STREAMS, place["provider"], seq=place["seq"], digest=place["digest"])


def parked(fold: Fold, document: Document) -> None:
    """First attempts that wait for their connectors."""
    said = document.payload
    for item in said["parked"]:
        fold.says(CASES, item["case"], state=CaseState.PARKED.value)
        fold.opens(
            PARKINGS,
            item["case"],
            code=item["code"],
            until=item["until"],
            retries=said["retries"],
            timeout_ms=said["timeout_ms"],
            parked_at=document.at,
            record_id=document.record_id,
            record_hash=document.digest,
        )


def released(fold: Fold, document: Document) -> None:
    """A parked first attempt was claimed for the socket."""
    (case,) = document.cases
    fold.says(CASES, case, state=CaseState.SENDING.value)


def taken_over(fold: Fold, document: Document) -> None:
    """A parked first attempt belongs to somebody else from now on."""
    (case,) = document.cases
    fold.says(CASES, case, created_by=document.by)


def breaker(fold: Fold, document: Document) -> None:
    """A connector's breaker opened or closed."""
    said = document.payload
    opened = said["change"] == breakers.OPENED
    fold.says(
        BREAKERS,
        said["provider"],
        state=(BreakerState.OPEN if opened else BreakerState.CLOSED).value,
        opened_at=said["opened_at"] if opened else "",
        changed_at=document.at,
    )


def canary(fold: Fold, document: Document) -> None:
    """A connector was tested."""
    said = document.payload
    fold.opens(
        CANARIES,
        document.record_id,
        connector=said["provider"],
        by=said["tested_by_id"],
        means=said["means"],
        outcome=said["outcome"],
        failure_class=said["failure_class"],
        status_code=_given(said["status_code"]),
        duration_ms=_given(said["duration_ms"]),
        started_at=said["started_at"],
        ended_at=document.at,
        record_hash=document.digest,
    )


def trouble(fold: Fold, document: Document) -> None:
    """A connector kept failing, and another one is to be told."""
    said = document.payload
    fold.opens(
        TROUBLES,
        document.record_id,
        connector=said["provider"],
        since=said["since"],
        failure_class=said["failure_class"],
        waiting=said["waiting"],
        through=said["through"],
        announced_at=document.at,
        record_hash=document.digest,
        told="",
        ended_at="",
        told_end="",
    )


def trouble_ended(fold: Fold, document: Document) -> None:
    """It delivers again."""
    fold.says(TROUBLES, document.payload["trouble_id"], ended_at=document.at)


def trouble_told(fold: Fold, document: Document) -> None:
    """What came of telling that it began or ended."""
    said = document.payload
    column = "told" if said["change"] == troubles.BEGAN else "told_end"
    fold.says(TROUBLES, said["trouble_id"], **{column: said["outcome"]})


def frozen(fold: Fold, document: Document) -> None:
    """A case was frozen into a file that is given away."""
    said = document.payload
    fold.opens(
        CAPSULES,
        document.record_id,
        case_id=said["case"],
        records=said["record_count"],
        log_size=said["log_size"],
        size=said["size"],
        sha256=said["sha256"],
        content=said["sha256"],
        created_at=document.at,
        created_by=document.by,
        record_hash=document.digest,
    )


def delivered(fold: Fold, document: Document) -> None:
    """What came of tries; a send that is no attempt of a case (a notification, a late answer) has no id."""
    for entry in document.payload["deliveries"]:
        if "attempt_id" in entry:
            _attempted(fold, document, entry)


def _attempted(fold: Fold, document: Document, entry: Mapping[str, Any]) -> None:
    case, number = entry["case"], entry["attempt_no"]
    fold.opens(
        ATTEMPTS,
        (case, number),
        attempt_id=entry["attempt_id"],
        outcome=entry["outcome"],
        answer=entry["answer"],
        assurance=entry["assurance"],
        may_have_arrived=entry["may_have_arrived"],
        failure_class=entry["failure_class"],
        # Documents write 0 where there was no connection, rows write nothing (CONTRACT §3).
        status_code="" if entry["failure_class"] in attempts.UNREACHABLE else _given(entry["status_code"]),
        tries=entry["attempt_count"],
        bytes_sent=entry["bytes_sent"],
        body_sha256=entry["body_sha256"],
        answer_sha256=entry.get("answer_sha256", ""),
        retry_after_s=_given(entry.get("retry_after_s")),
        # Nobody heard of it again: its times are those of the record.
        started_at=entry["started_at"] or document.at,
        completed_at=entry["completed_at"] or document.at,
        record_id=document.record_id,
        record_hash=document.digest,
    )
    unknown = entry["outcome"] == Outcome.UNKNOWN
    left = unknown or entry["answer"] != Answer.NOT_SENT
    fold.says(
        CASES,
        case,
        attempt_count=number,
        counted_attempts=_more(fold.value(CASES, case, "counted_attempts"), int(left)),
        last_outcome_at=document.at,
    )
    if unknown:
        fold.says(CASES, case, state=CaseState.UNKNOWN.value)
    else:
        came_to(fold, document, case, entry["outcome"])


def came_to(fold: Fold, document: Document, case: str, outcome: str) -> Any:
    """A try was delivered or failed; a failure leaves the case settled when an earlier try arrived after all.

    Returns whether the case is settled by now; ``UNKNOWN`` when only an earlier record would tell.
    """
    settled: Any = outcome == Outcome.DELIVERED or fold.notes.get(("arrived", case), False)
    if not settled and not fold.whole:
        fold.says(CASES, case, state=UNKNOWN, settled_at=UNKNOWN)
        return UNKNOWN
    state = CaseState.DELIVERED if settled else CaseState.FAILED
    fold.says(CASES, case, state=state.value, settled_at=document.at if settled else "")
    return settled


def reconciled(fold: Fold, document: Document) -> tuple[Any, bool]:
    """What turned out about an attempt whose outcome was unknown; whether its case moved, and whether it arrived.

    What people attested before stands against a late failure; a late success counts more than their word.
    """
    said, (case,) = document.payload, document.cases
    attempt = ("attested", case, said["attempt_no"])
    arrived = said["outcome"] == Outcome.DELIVERED
    late = said["source"] == attempts.Source.LATE_ANSWER
    moved: Any = True
    if late and not fold.whole:
        # What people said of it before decides, and may lie before what was folded.
        moved = UNKNOWN
        fold.says(CASES, case, state=UNKNOWN, settled_at=UNKNOWN, counted_attempts=UNKNOWN)
    elif late and fold.notes.get(attempt):
        moved = arrived and fold.value(CASES, case, "state") == CaseState.FAILED
        if moved:
            came_to(fold, document, case, said["outcome"])
    else:
        left = not late or said["answer"] != Answer.NOT_SENT
        counted = _more(fold.value(CASES, case, "counted_attempts"), -int(not left))
        fold.says(CASES, case, counted_attempts=counted)
        came_to(fold, document, case, said["outcome"])
    if not late:
        fold.notes[attempt] = True
    if arrived:
        fold.notes["arrived", case] = True
    return moved, arrived


def _reconciled(fold: Fold, document: Document) -> None:
    reconciled(fold, document)


# --- erasing ----------------------------------------------------------------------------------------------------


def erasure_proposed(fold: Fold, document: Document) -> None:
    """Somebody proposed that the bytes of some records go."""
    said = document.payload
    fold.opens(
        ERASURES,
        said["erasure_id"],
        legal_basis=said["legal_basis"],
        reason=said["reason"],
        rule="",
        rule_in_force=False,
        proposed_by=principal(fold, document.by),
        proposed_through=document.by,
        proposed_at=document.at,
        proposal_id=document.record_id,
        proposal_hash=document.digest,
        state=ErasureState.PROPOSED.value,
        decided_by="",
        decided_at="",
    )
    _items(fold, said)


def erased(fold: Fold, document: Document) -> None:
    """They went: another person confirmed it, or a retention rule let them go, which nobody proposes."""
    said = document.payload
    if said["retention_kind"]:
        fold.opens(
            ERASURES,
            document.record_id,
            legal_basis=said["legal_basis"],
            reason="",
            rule=said["retention_kind"],
            rule_in_force=_in_force(
                fold, said["retention_kind"], retention_terms.kept(said["keep_days"], said["legal_basis"])
            ),
            proposed_by="",
            proposed_through="",
            proposed_at=document.at,
            proposal_id="",
            proposal_hash="",
        )
        _items(fold, said)
    fold.says(
        ERASURES,
        document.record_id,
        state=ErasureState.CONFIRMED.value,
        decided_by=principal(fold, document.by) if document.by else "",
        decided_at=document.at,
    )


def erasure_ended(fold: Fold, document: Document) -> None:
    """Another person refused it, or who proposed it took it back."""
    said = document.payload
    fold.says(
        ERASURES,
        said["erasure_id"],
        state=said["erasure_state"],
        decided_by=principal(fold, document.by),
        decided_at=document.at,
    )


def _items(fold: Fold, said: Mapping[str, Any]) -> None:
    for item in said["items"]:
        named = {name: item[name] for name in ("record_id", "kind", "digest")}
        fold.opens(ERASURE_ITEMS, (said["erasure_id"], item["index"]), **named)


def held(fold: Fold, document: Document) -> None:
    """Nothing that a hold covers is erased from now on."""
    said = document.payload
    fold.opens(
        HOLDS,
        document.record_id,
        scope=said["scope"],
        reason=said["reason"],
        placed_by=principal(fold, document.by),
        placed_at=document.at,
        record_hash=document.digest,
        lifted_by="",
        lifted_at="",
    )


def lifted(fold: Fold, document: Document) -> None:
    """A hold ended."""
    who = principal(fold, document.by)
    fold.says(HOLDS, document.payload["hold_id"], lifted_by=who, lifted_at=document.at)


def _more(number: Any, by: int) -> Any:
    return number if number is UNKNOWN else number + by


def _given(value: Any) -> Any:
    return "" if value is None else value


RULES = {
    PERSON.name: Rule((PERSONS,), person),
    ROLE.name: Rule((GRANTS, PERSONS), role),
    CONFIGURATION.name: Rule((EDITS, RETENTION), configured),
    LEDGER_KEY.name: Rule((KEYS,), key),
    LEDGER_ANCHOR.name: Rule((ANCHORS,), anchored),
    NOTIFICATION_PLAN.name: Rule((ANNOUNCED, ROUTES), announced),
    NOTIFICATION_ACK.name: Rule((ROUTES,), acknowledged),
    AUDIT_PACKAGE.name: Rule((PACKAGES,), packaged),
    DELIVERY_PLAN.name: Rule((PLANS, CASES, STREAMS), planned),
    DELIVERY_STREAM.name: Rule((CASES, STREAMS), placed),
    DELIVERY_PARKING.name: Rule((PARKINGS, CASES), parked),
    DELIVERY_RELEASE.name: Rule((CASES,), released),
    DELIVERY_TAKEOVER.name: Rule((CASES,), taken_over),
    CONNECTOR_BREAKER.name: Rule((BREAKERS,), breaker),
    CONNECTOR_CANARY.name: Rule((CANARIES,), canary),
    CONNECTOR_TROUBLE.name: Rule((TROUBLES,), trouble),
    CONNECTOR_TROUBLE_END.name: Rule((TROUBLES,), trouble_ended),
    CONNECTOR_TROUBLE_NOTICE.name: Rule((TROUBLES,), trouble_told),
    CASE_CAPSULE.name: Rule((CAPSULES,), frozen),
    EPOCH_PROPOSAL.name: Rule((EPOCHS,), epoch_proposed),
    EPOCH.name: Rule((EPOCHS,), epoch_decided(EpochState.CONFIRMED)),
    EPOCH_WITHDRAWAL.name: Rule((EPOCHS,), epoch_decided(EpochState.WITHDRAWN)),
    ERASURE_PROPOSAL.name: Rule((ERASURES, ERASURE_ITEMS), erasure_proposed),
    ERASURE.name: Rule((ERASURES, ERASURE_ITEMS), erased),
    ERASURE_REFUSAL.name: Rule((ERASURES,), erasure_ended),
    LEGAL_HOLD.name: Rule((HOLDS,), held),
    LEGAL_HOLD_LIFT.name: Rule((HOLDS,), lifted),
    CONNECTOR_DELIVERY.name: Rule((ATTEMPTS, CASES), delivered),
    DELIVERY_RECONCILIATION.name: Rule((CASES,), _reconciled),
}
