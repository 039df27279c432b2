"""Parked first deliveries: asked for while something held their connector back, and sent once nothing does.

A person asked for attempt 1, and nothing of the content ever left: sending it later needs no approval (P1), and the
worker starts nothing that nobody asked for (P9). Whoever asked owns it until it is sent or settled (P16), or until
somebody else who may deliver takes it over: it is sent for its owner, and counts as sent by them. Attempt 2 is an
approved retry like everybody else's.
"""

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Count, Exists, Min, OuterRef

from evidence.documents import DELIVERY_PARKING, DELIVERY_PLAN, DELIVERY_RELEASE, DELIVERY_TAKEOVER
from evidence.domain import attempts, breakers, ledger, live, policies, records, sending, text
from evidence.domain import clock as clocks
from evidence.domain.breakers import Wait
from evidence.domain.clock import Clock
from evidence.domain.transitions import CASES, move
from evidence.enums import CaseState
from evidence.errors import Conflict, InvalidInput
from evidence.models import Case, Connector, Parking, PauseSwitch, Person
from evidence.permissions import Permission

# So many of one connector are under way at once: a receiver that just came back is not run over.
AT_ONCE = 4


@dataclass(frozen=True)
class Parked:
    """Parked cases of one connector: how many, since when the oldest waits and whose it is."""

    count: int
    oldest: datetime
    owner: str


# --- parking ------------------------------------------------------------------------------------------------------


def park(
    cases: Sequence[Case],
    waits: Mapping[int, Sequence[Wait]],
    plan: records.Draft,
    *,
    retries: int,
    timeout_s: float,
    at: datetime,
    by: Person,
) -> records.Draft:
    """Say of new ``cases`` of one plan, in state parked, why they wait; the record, which the caller appends."""
    first = cases[0]
    longest = {case.pk: waits[case.connector_id][0] for case in cases}
    draft = records.draft(
        DELIVERY_PARKING,
        records.mint_id(DELIVERY_PARKING),
        {
            "delivery_id": plan.record_id,
            "audit_id": first.package.audit_id,
            "parked_at": records.timestamp(at),
            "parked_by": by.username,
            "retries": retries,
            "timeout_ms": round(timeout_s * 1000),
            "parked": [
                {
                    "case": case.case_id,
                    "provider": case.connector.key,
                    "code": longest[case.pk].code.value,
                    "reason": longest[case.pk].sentence,
                    "until": _time(longest[case.pk].until),
                }
                for case in sorted(cases, key=lambda case: case.case_id)
            ],
        },
        at=at,
        by=by,
        cases=sorted(case.case_id for case in cases),
        references=[records.Reference(DELIVERY_PLAN.name, plan.record_id, plan.digest)],
    )
    Parking.objects.bulk_create(
        Parking(
            case=case,
            code=longest[case.pk].code,
            until=longest[case.pk].until,
            retries=retries,
            timeout_ms=round(timeout_s * 1000),
            parked_at=at,
            record_id=draft.record_id,
            record_hash=draft.digest,
        )
        for case in cases
    )
    return draft


def as_dicts(draft: records.Draft) -> list[dict[str, str]]:
    """What an answer says about the cases that a record parked: case, connector, code, reason, until."""
    return [dict(item) for item in draft.view[DELIVERY_PARKING.payload_key]["parked"]]


# --- sending ------------------------------------------------------------------------------------------------------


def due(at: datetime, *, but: Collection[int] = ()) -> list[tuple[Connector, list[int]]]:
    """Parked cases (by key) that nothing stands against at ``at``, by connector, the oldest first.

    At most ``AT_ONCE`` of a connector; ``but`` are left out. Whether one may really go is judged again by
    ``release``; what waits for longer is left out here already, so that it is not locked again and again. A few
    queries, and one for each connector and each owner that has any.
    """
    paused = policies.paused_scopes()
    if PauseSwitch.ALL in paused:
        return []
    here = Case.objects.filter(state=CaseState.PARKED).exclude(pk__in=but)
    connectors = list(
        Connector.objects.filter(Exists(here.filter(connector=OuterRef("pk"))), enabled=True)
        .exclude(key__in=paused)
        .exclude(breakers.waiting(at))
    )
    if not connectors:
        return []
    owners = Person.objects.filter(pk__in=here.values("created_by")).select_related("owner")
    here = here.exclude(created_by__in=[one for one in owners if _reasons_against_owner(one)])
    return [
        (one, list(here.filter(connector=one).order_by("pk").values_list("pk", flat=True)[:AT_ONCE]))
        for one in connectors
    ]


def release(case_pk: int, *, clock: Clock) -> Case | None:
    """Claim a parked first attempt before a socket opens; None when something stands against it, or somebody has it.

    From here on it is like any first attempt: a lease that runs out leaves ``outcome_unknown`` (P3).
    """
    with transaction.atomic():
        case = (
            Case.objects.select_for_update(no_key=True, skip_locked=True, of=("self",))
            .select_related("connector", "plan", "package", "parking", "created_by__owner")
            .filter(pk=case_pk, state=CaseState.PARKED)
            .first()
        )
        if case is None:
            return None
        at = clocks.read(clock)
        if reasons_against_release(case, at, clock=clock):
            return None
        lease_until = clock() + timedelta(seconds=sending.lease_seconds(case.parking.timeout_ms / 1000))
        case.lease_token = secrets.token_hex(16)
        draft = records.draft(
            DELIVERY_RELEASE,
            records.mint_id(DELIVERY_RELEASE),
            {
                "delivery_id": case.plan.delivery_id,
                "audit_id": case.package.audit_id,
                "provider": case.connector.key,
                "parking_id": case.parking.record_id,
                "attempt_no": 1,
                "released_at": records.timestamp(at),
                "lease_until": records.timestamp(lease_until),
                "waited_s": int((at - case.parking.parked_at).total_seconds()),
            },
            at=at,
            by=case.created_by,
            cases=[case.case_id],
            references=[
                *attempts.case_references([case]),
                _parking_reference(case),
            ],
        )
        move(
            CASES,
            case.pk,
            CaseState.SENDING,
            only_from=[CaseState.PARKED],
            lease_token=case.lease_token,
            lease_until=lease_until,
        )
        ledger.append([draft])
    return case


def reasons_against_release(case: Case, at: datetime, *, clock: Clock) -> list[tuple[str, str]]:
    """Why a parked case goes on waiting, as ``(code, sentence)``; empty means that it is sent next."""
    return [
        *_reasons_against_owner(case.created_by),
        *policies.reasons_against_sending(case.connector, policies.paused_scopes(), at),
        *live.reasons_against_live(clock),
    ]


def _reasons_against_owner(owner: Person) -> list[tuple[str, str]]:
    """Why nothing is sent for whoever owns it."""
    if not policies.reasons_against_role(owner, Permission.DELIVER):
        return []
    sentence = (
        f"It belongs to {owner.username}, who may not deliver any more: somebody who may takes it over."
    )
    return [("owner_may_not_deliver", sentence)]


def _parking_reference(case: Case) -> records.Reference:
    """How later records quote what parked the case."""
    return records.Reference(DELIVERY_PARKING.name, case.parking.record_id, case.parking.record_hash)


# --- taking over --------------------------------------------------------------------------------------------------


def take_over(case: Case, *, reason: str, by: Person, clock: Clock, claimed_actor: str = "") -> records.Draft:
    """Make ``by`` the owner of a parked case: its first attempt is sent for them. Nothing is sent by this itself.

    Raises ``NotAllowed`` ``role_required`` for who may not deliver, ``InvalidInput`` without a reason, ``Conflict``
    with a code of ``reasons_against_taking_over``.
    """
    policies.require_role(by, Permission.DELIVER)
    reason = text.clean(reason, field="reason", limit=text.MAX_NOTES, lines=True)
    if not reason:
        raise InvalidInput("Not taken over: say why.", errors={"reason": ["Say why."]})
    with transaction.atomic():
        # Read without its owner: who waits here for another taker would find no row that still fits both.
        case = Case.objects.select_for_update(no_key=True).get(pk=case.pk)
        at = clocks.read(clock)
        for code, sentence in reasons_against_taking_over(case, by):
            raise Conflict(f"Not taken over. {sentence}", code=code, case_state=case.state)
        owner = case.created_by
        draft = records.draft(
            DELIVERY_TAKEOVER,
            records.mint_id(DELIVERY_TAKEOVER),
            {
                "case": case.case_id,
                "delivery_id": case.plan.delivery_id,
                "audit_id": case.package.audit_id,
                "provider": case.connector.key,
                "parking_id": case.parking.record_id,
                "taken_from": owner.username,
                "taken_from_id": owner.person_id,
                "taken_by": by.username,
                "taken_by_id": by.person_id,
                "taken_at": records.timestamp(at),
                "reason": reason,
            },
            at=at,
            by=by,
            cases=[case.case_id],
            references=[*attempts.case_references([case]), _parking_reference(case)],
            claimed_actor=claimed_actor,
        )
        Case.objects.filter(pk=case.pk).update(created_by=by)
        ledger.append([draft])
    return draft


def reasons_against_taking_over(case: Case, by: Person) -> list[tuple[str, str]]:
    """Why somebody who may deliver does not become the owner of the case now, as ``(code, sentence)``."""
    if case.state != CaseState.PARKED:
        now = case.state.replace("_", " ")
        return [("not_parked", f"This case is {now}; only a first attempt that waits is taken over.")]
    if case.created_by_id == by.pk:
        return [("owned_already", f"This case belongs to {by.username} already.")]
    return []


# --- what is parked -------------------------------------------------------------------------------------------------


def standing(connectors: Iterable[Connector]) -> dict[int, Parked]:
    """What is parked for each connector, by its key; those with nothing are left out. Two queries."""
    rows = (
        Case.objects.filter(state=CaseState.PARKED, connector__in=[one.pk for one in connectors])
        .order_by()
        .values_list("connector")
        .annotate(count=Count("pk"), oldest=Min("pk"))
    )
    counts = {connector: (count, oldest) for connector, count, oldest in rows}
    oldest = Case.objects.select_related("created_by").in_bulk([pk for _, pk in counts.values()])
    return {
        connector: Parked(count, oldest[pk].created_at, oldest[pk].created_by.username)
        for connector, (count, pk) in counts.items()
    }


def why(case: Case, at: datetime, *, clock: Clock) -> dict[str, Any] | None:
    """Of a parked case: whose it is, how long it waits, why and until when; None for any other one."""
    if case.state != CaseState.PARKED:
        return None
    waits = breakers.waits([case.connector], at).get(case.connector_id, ())
    reasons = reasons_against_release(case, at, clock=clock)
    return {
        "owner": case.created_by,
        "age": at - case.created_at,
        "reasons": [sentence for _, sentence in reasons],
        "until": waits[0].until if waits else None,
    }


def _time(moment: datetime | None) -> str:
    return records.timestamp(moment) if moment else ""
