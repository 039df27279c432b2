"""Settling a case without a delivery, as its page offers it: what stands against it, the verbs, the panel."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import forms

from evidence.domain.clock import Clock
from evidence.errors import Conflict
from evidence.models import Person
from recovery.console.disposition_forms import (
    DecideDispositionForm,
    ProposeDispositionForm,
    WithdrawDispositionForm,
)
from recovery.domain import dispositions, retry_policies
from recovery.domain.policies import (
    reasons_against_confirming,
    reasons_against_disposition_decision,
    reasons_against_proposing,
)
from recovery.domain.turns import Standing
from recovery.enums import Act, DispositionKind, DispositionState
from recovery.models import Disposition

Data = Mapping[str, Any]

# The acts that stand in a panel of their own, beside the one that is due.
FORMS: dict[Act, type[forms.Form]] = {
    Act.PROPOSE_DISPOSITION: ProposeDispositionForm,
    Act.DECIDE_DISPOSITION: DecideDispositionForm,
    Act.WITHDRAW_DISPOSITION: WithdrawDispositionForm,
}


# --- what stands against it ---------------------------------------------------------------------------------------


def against_proposing(standing: Standing, at: datetime) -> list[str]:
    """Why nobody may propose a disposition of the case now."""
    return _sentences(reasons_against_proposing(standing.case, standing.disposition))


def against_deciding(standing: Standing, at: datetime) -> list[str]:
    """Why nobody may decide on a proposal now, be it to refuse it."""
    return _against(standing, DispositionState.REFUSED)


def _against(standing: Standing, state: DispositionState) -> list[str]:
    found = standing.open_disposition
    return (
        _sentences(reasons_against_disposition_decision(found, state)) if found else ["Nothing is proposed."]
    )


def against_confirmer(standing: Standing, person: Person, at: datetime) -> list[str]:
    """Why this person may not confirm or refuse the open proposal."""
    found = standing.open_disposition
    return reasons_against_confirming(person, found) if found else []


def against_taking_back(standing: Standing, person: Person, at: datetime) -> list[str]:
    """Why this person may not withdraw the open proposal."""
    found = standing.open_disposition
    return dispositions.reasons_against_withdrawing(found, person) if found else []


def _sentences(reasons: list[tuple[str, str]]) -> list[str]:
    return [sentence for _, sentence in reasons]


# --- the verbs ----------------------------------------------------------------------------------------------------


def propose(standing: Standing, data: Data, by: Person, clock: Clock) -> str:
    """Propose what the form says."""
    proposal = dispositions.Proposal(
        kind=DispositionKind(data["kind"]),
        reason=data["reason"],
        superseded_by=data["superseded_by"],
        external_ref=data["external_ref"],
    )
    draft = dispositions.propose(standing.case, proposal, by=by, clock=clock)
    return f"Proposed. Recorded as {draft.record_id}; an approver who is somebody else decides now."


def decide(standing: Standing, data: Data, by: Person, clock: Clock) -> str:
    """Confirm or refuse the proposal that the page showed."""
    found = _shown(standing, data["disposition_id"])
    if data["state"] == DispositionState.REFUSED:
        draft = dispositions.refuse(found, by=by, clock=clock, notes=data["notes"])
        return f"Refused. Recorded as {draft.record_id}; the case stays as it is."
    draft = dispositions.confirm(found, by=by, clock=clock, notes=data["notes"])
    return f"Confirmed. Recorded as {draft.record_id}; the case is settled and nothing is sent again."


def take_back(standing: Standing, data: Data, by: Person, clock: Clock) -> str:
    """Withdraw the proposal that the page showed."""
    found = _shown(standing, data["disposition_id"])
    draft = dispositions.withdraw(found, by=by, clock=clock, notes=data["notes"])
    return f"Taken back. Recorded as {draft.record_id}; the case stays as it is."


def _shown(standing: Standing, disposition_id: str) -> Disposition:
    """The disposition of this case that a page showed; ``Conflict`` when it is not one of this case."""
    found = dispositions.dispositions().filter(case=standing.case, disposition_id=disposition_id).first()
    if found is None:
        raise Conflict("Not recorded: this case has no such proposal.", code="disposition_not_found")
    return found


# --- the panel ----------------------------------------------------------------------------------------------------


def shown(standing: Standing) -> Data:
    """What the forms about the open proposal send back."""
    found = standing.open_disposition
    return {"disposition_id": found.disposition_id} if found else {}


def panel(standing: Standing, options: Mapping[Act, Any], tried: Act | None) -> dict[str, Any]:
    """What the panel shows: the newest disposition and the three acts; a form that was refused stays on it."""
    found = standing.open_disposition
    proposes = tried is Act.PROPOSE_DISPOSITION or not (found or standing.case.settled_at)
    return {
        "newest": standing.disposition,
        "open": found,
        "against_confirming": _against(standing, DispositionState.CONFIRMED) if found else [],
        "propose": options[Act.PROPOSE_DISPOSITION] if proposes else None,
        "decide": options[Act.DECIDE_DISPOSITION],
        "withdraw": options[Act.WITHDRAW_DISPOSITION],
        "is_tried": tried is Act.PROPOSE_DISPOSITION,
        "plan": options[Act.PLAN],
        **_limit(standing),
        "successors": dispositions.successors(standing.case) if proposes else [],
    }


def _limit(standing: Standing) -> dict[str, Any]:
    """How many tries the policy allows now, for a case whose tries are used up."""
    if standing.act is not None or standing.case.settled_at or not standing.decision:
        return {}
    limit = retry_policies.configured().max_retry_attempts
    return {"limit": limit, "tries_left": max(0, limit - standing.case.counted_attempts)}
