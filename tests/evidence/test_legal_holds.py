"""P24: nothing that a legal hold covers is erased, by two people or by retention, until somebody lifts it."""

import pytest

from evidence.documents import LEGAL_HOLD, LEGAL_HOLD_LIFT
from evidence.domain import erasures, holds, records, verification
from evidence.enums import Role
from evidence.errors import Conflict, InvalidInput, NotAllowed, NotFound
from evidence.models import Case, LegalHold, Record
from tests.builders import World, person

WHY = "Case 12 of the court."


def placed(world: World, scope: str) -> LegalHold:
    return holds.place(scope, reason=WHY, by=world.auditor, clock=world.clock)


def erase(world: World, *ids: str) -> None:
    erasure = erasures.propose(ids, "law", "asked for", by=world.administrator, clock=world.clock)
    erasures.confirm(erasure, by=world.auditor, clock=world.clock)


def scopes(case: Case) -> dict[str, list[str]]:
    """What may be held, and records that each scope covers."""
    attempt = case.attempts.get().record_id
    covered = [attempt, case.package.audit_id, case.plan.delivery_id]
    return {"*": covered, case.case_id: covered, attempt: [attempt]}


def test_what_is_held_stays_until_it_is_lifted(world: World) -> None:
    (case,) = world.delivered()
    for scope, covered in scopes(case).items():
        hold = placed(world, scope)
        for record_id in covered:
            with pytest.raises(Conflict, match=hold.hold_id) as refusal:
                erase(world, record_id)
            assert refusal.value.code == "legal_hold"
        holds.lift(hold, reason="Settled.", by=world.administrator, clock=world.clock)
    erase(world, *scopes(case)["*"])
    assert list(verification.verify()) == []


def test_a_hold_on_one_record_keeps_no_other(world: World) -> None:
    (case,) = world.delivered()
    placed(world, case.attempts.get().record_id)
    erase(world, case.plan.delivery_id)


def test_placing_and_lifting_are_records_in_the_chain_of_the_case(world: World) -> None:
    (case,) = world.delivered()
    hold = placed(world, case.case_id)
    holds.lift(hold, reason="Settled.", by=world.auditor, clock=world.clock)
    made, ended = Record.objects.order_by("index")[Record.objects.count() - 2 :]
    assert (made.kind, ended.kind) == (LEGAL_HOLD.name, LEGAL_HOLD_LIFT.name)
    for record in (made, ended):
        document = records.load(record.body)
        assert document["cases"] == [case.case_id]
    assert records.load(ended.body)["references"] == [
        {"kind": LEGAL_HOLD.name, "id": hold.hold_id, "hash": made.digest}
    ]


def test_several_holds_stand_side_by_side(world: World) -> None:
    """Two matters, one of which ends."""
    (case,) = world.delivered()
    first, _ = placed(world, case.case_id), placed(world, case.case_id)
    holds.lift(first, reason="Settled.", by=world.auditor, clock=world.clock)
    with pytest.raises(Conflict):
        erase(world, case.plan.delivery_id)


@pytest.mark.parametrize("role", (Role.ANALYST, Role.APPROVER, Role.OPERATOR, Role.VIEWER))
def test_others_hold_nothing(world: World, role: Role) -> None:
    hold, other = placed(world, "*"), person(role)
    with pytest.raises(NotAllowed):
        holds.place("*", reason=WHY, by=other, clock=world.clock)
    with pytest.raises(NotAllowed):
        holds.lift(hold, reason=WHY, by=other, clock=world.clock)


def test_a_hold_has_a_reason_and_covers_something(world: World) -> None:
    with pytest.raises(InvalidInput):
        holds.place("*", reason=" ", by=world.auditor, clock=world.clock)
    with pytest.raises(NotFound):
        placed(world, "gordackdelivery-0000000000000000.splunk")
    hold = placed(world, "*")
    with pytest.raises(InvalidInput):
        holds.lift(hold, reason="", by=world.auditor, clock=world.clock)
    holds.lift(hold, reason="Over.", by=world.auditor, clock=world.clock)
    with pytest.raises(Conflict) as refusal:
        holds.lift(hold, reason="Over.", by=world.auditor, clock=world.clock)
    assert refusal.value.code == "hold_lifted"
