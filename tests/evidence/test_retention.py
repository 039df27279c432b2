"""P24: what a kind's retention rule lets go is erased by itself, once two people stand behind the rule."""

import json
from collections.abc import Callable, Sequence
from io import StringIO

import pytest
from django.core.management import call_command

from evidence.documents import CONNECTOR_DELIVERY, ERASURE, NOTIFICATION_PLAN, PERSON
from evidence.domain import configuration, erasures, holds, records, retention, retention_terms, verification
from evidence.enums import Role
from evidence.errors import Conflict, InvalidInput, NotAllowed
from evidence.models import Record, RetentionRule
from tests.builders import Clock, World, person


@pytest.fixture
def world(world: World) -> World:
    world.clock = Clock()
    return world


def ruled(
    world: World, kind: str = CONNECTOR_DELIVERY.name, days: int = 30, *, confirmed: bool = True
) -> RetentionRule:
    """An administrator's rule, confirmed by the auditor."""
    rule = RetentionRule(kind=kind, keep_days=days, legal_basis="Records act, section 9")
    configuration.save(rule, by=world.administrator, clock=world.clock)
    if confirmed:
        rule = retention.confirm(rule, by=world.auditor, clock=world.clock)
    return rule


def later(world: World, days: int) -> None:
    world.clock.forward(days=days)  # type: ignore[attr-defined]


def gone() -> set[str]:
    return set(Record.objects.filter(body__isnull=True).values_list("kind", flat=True))


def test_what_is_due_goes_and_an_entry_says_under_which_rule(world: World) -> None:
    world.delivered()
    ruled(world)
    later(world, 31)
    assert retention.run(clock=world.clock) == 2  # the announcement's and the case's
    assert gone() == {CONNECTOR_DELIVERY.name}
    said = records.payload_of(Record.objects.filter(kind=ERASURE.name).latest("index")) or {}
    assert (said["erased_under"], said["retention_kind"], said["keep_days"]) == (
        "retention",
        CONNECTOR_DELIVERY.name,
        30,
    )
    assert (said["proposed_by"], said["confirmed_by"]) == (
        world.administrator.username,
        world.auditor.username,
    )
    assert retention.run(clock=world.clock) == 0
    assert list(verification.verify()) == []


def test_what_is_younger_stays(world: World) -> None:
    world.delivered()
    ruled(world)
    later(world, 29)
    assert retention.run(clock=world.clock) == 0


def test_a_rule_of_one_person_does_nothing(world: World) -> None:
    world.delivered()
    rule = ruled(world, confirmed=False)
    later(world, 31)
    assert retention.run(clock=world.clock) == 0
    with pytest.raises(NotAllowed):
        retention.confirm(rule, by=world.administrator, clock=world.clock)
    retention.confirm(rule, by=world.auditor, clock=world.clock)
    assert retention.run(clock=world.clock) == 2


def test_nobody_confirms_their_own_rule(world: World) -> None:
    both = person(Role.ADMINISTRATOR, Role.AUDITOR)
    rule = RetentionRule(kind=CONNECTOR_DELIVERY.name, keep_days=1, legal_basis="law")
    configuration.save(rule, by=both, clock=world.clock)
    with pytest.raises(NotAllowed) as refusal:
        retention.confirm(rule, by=both, clock=world.clock)
    assert refusal.value.code == "second_person_required"


def test_changed_terms_wait_for_their_confirmation(world: World) -> None:
    world.delivered()
    rule = ruled(world, days=300)
    with pytest.raises(Conflict):
        retention.confirm(rule, by=world.auditor, clock=world.clock)
    rule.keep_days = 1
    configuration.save(rule, by=world.administrator, clock=world.clock)
    later(world, 31)
    assert retention.run(clock=world.clock) == 0
    retention.confirm(rule, by=world.auditor, clock=world.clock)
    assert retention.run(clock=world.clock) == 2


def test_a_disabled_rule_rests(world: World) -> None:
    world.delivered()
    rule = ruled(world)
    rule.enabled = False
    configuration.save(rule, by=world.administrator, clock=world.clock)
    later(world, 31)
    assert retention.run(clock=world.clock) == 0


def test_what_a_keeper_keeps_holds_nothing_else_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest that are due have to stay for a reason that only the erasure sees; the next ones go."""
    for _ in range(3):
        world.announced()
    ruled(world, NOTIFICATION_PLAN.name)
    later(world, 31)
    oldest, *rest = Record.objects.filter(kind=NOTIFICATION_PLAN.name).order_by("index")

    def keep(found: Sequence[Record]) -> dict[int, list[tuple[str, str]]]:
        return {record.index: [("kept", "stays.")] for record in found if record.index == oldest.index}

    monkeypatch.setattr(erasures, "KEEPERS", [*erasures.KEEPERS, keep])
    monkeypatch.setattr(erasures, "MOST", 1)
    monkeypatch.setattr(retention, "MOST_AT_ONCE", 1)
    for left in rest:
        assert retention.run(clock=world.clock) == 1
        assert Record.objects.get(pk=left.pk).body is None
    assert retention.run(clock=world.clock) == 0
    assert Record.objects.get(pk=oldest.pk).body is not None


def test_an_unsettled_case_keeps_its_records_and_no_others(world: World) -> None:
    (case,) = world.failed()
    for kind in (CONNECTOR_DELIVERY.name, case_kind("package"), case_kind("plan")):
        ruled(world, kind)
    later(world, 31)
    assert retention.run(clock=world.clock) == 1
    for record_id in (case.attempts.get().record_id, case.package.audit_id, case.plan.delivery_id):
        assert Record.objects.get(record_id=record_id).body is not None
    world.disposed(case)
    assert retention.run(clock=world.clock) == 3


def case_kind(what: str) -> str:
    from evidence.documents import AUDIT_PACKAGE, DELIVERY_PLAN

    return {"package": AUDIT_PACKAGE.name, "plan": DELIVERY_PLAN.name}[what]


@pytest.mark.parametrize("scope", ("*", "case", "record"))
def test_nothing_goes_under_legal_hold(world: World, scope: str) -> None:
    (case,) = world.delivered()
    ruled(world)
    later(world, 31)
    record = Record.objects.get(record_id=case.attempts.get().record_id)
    held = {"*": "*", "case": case.case_id, "record": record.record_id}[scope]
    hold = holds.place(held, reason="court", by=world.auditor, clock=world.clock)
    retention.run(clock=world.clock)
    record.refresh_from_db()
    assert record.body is not None
    holds.lift(hold, reason="over", by=world.auditor, clock=world.clock)
    assert retention.run(clock=world.clock)
    record.refresh_from_db()
    assert record.body is None


def test_a_hold_that_comes_between_keeps_the_records(world: World) -> None:
    """Asked for and looked at again with the ledger held."""
    world.delivered()
    rule = ruled(world)
    later(world, 31)
    found = list(retention.due(rule, world.clock()))
    holds.place("*", reason="court", by=world.auditor, clock=world.clock)
    assert erasures.retire(rule, found, clock=world.clock) is None
    assert gone() == set()


@pytest.mark.parametrize("kind", (PERSON.name, "rumour"))
def test_a_rule_is_about_a_kind_that_may_go(world: World, kind: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        ruled(world, kind)
    assert "kind" in refusal.value.errors


def test_the_command_says_what_is_due_and_does_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from evidence.management.commands import retention as command

    world.delivered()
    ruled(world)
    ruled(world, NOTIFICATION_PLAN.name, confirmed=False)
    later(world, 31)
    monkeypatch.setattr(command, "system_clock", world.clock)
    out = StringIO()
    call_command("retention", "--dry-run", stdout=out)
    assert out.getvalue().splitlines() == [
        f"{NOTIFICATION_PLAN.name}: 1 due, kept for 30 days: waits for an auditor's confirmation",
        f"{CONNECTOR_DELIVERY.name}: 2 due, kept for 30 days",
    ]
    assert gone() == set()
    out = StringIO()
    call_command("retention", "--json", stdout=out)
    assert json.loads(out.getvalue()) == {"erased": 2}
    assert gone() == {CONNECTOR_DELIVERY.name}


# --- behind the product's back --------------------------------------------------------------------------------------


def forge(world: World, kind: str = CONNECTOR_DELIVERY.name) -> RetentionRule:
    """A rule that nobody edited or confirmed, in force all the same."""
    at = world.clock()
    rule = RetentionRule(
        kind=kind, keep_days=1, legal_basis="law", edited_by=world.administrator, edited_at=at
    )
    rule.confirmed_by, rule.confirmed_at = world.auditor, at
    rule.confirmed_terms = retention_terms.terms(rule)
    rule.save()
    return rule


def differing() -> list[str]:
    return [str(one) for one in verification.verify()]


def test_an_erasure_under_a_forged_rule_is_found(world: World) -> None:
    world.delivered()
    forge(world)
    later(world, 5)
    assert retention.run(clock=world.clock) == 2
    named = f"retention rule {CONNECTOR_DELIVERY.name}, record: expected one that speaks of it, found none"
    found = differing()
    assert [one for one in found if ", rule_in_force: expected False, found True" in one]
    assert [one for one in found if named in one]


def alone(world: World) -> None:
    """Confirmed by who edited it."""
    rule = ruled(world, days=1, confirmed=False)
    both = person(Role.ADMINISTRATOR, Role.AUDITOR)
    rule.edited_by, rule.keep_days = both, 2
    configuration.save(rule, by=both, clock=world.clock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retention, "reasons_against_confirming", lambda person, rule: [])
        retention.confirm(rule, by=both, clock=world.clock)


def shortened(world: World) -> None:
    """Confirmed for a year; the row says a day."""
    rule = ruled(world, days=365)
    rule.keep_days = 1
    terms = retention_terms.terms(rule)
    RetentionRule.objects.filter(pk=rule.pk).update(keep_days=1, confirmed_terms=terms)


def never_confirmed(world: World) -> None:
    rule = ruled(world, days=1, confirmed=False)
    RetentionRule.objects.filter(pk=rule.pk).update(
        confirmed_by=world.auditor, confirmed_at=world.clock(), confirmed_terms=retention_terms.terms(rule)
    )


def edited_since(world: World) -> None:
    """The terms of a while ago, which somebody has changed since."""
    rule = ruled(world, days=1)
    rule.keep_days = 300
    configuration.save(rule, by=world.administrator, clock=world.clock)
    RetentionRule.objects.filter(pk=rule.pk).update(keep_days=1)


def switched_on(world: World) -> None:
    rule = ruled(world, days=1)
    rule.enabled = False
    configuration.save(rule, by=world.administrator, clock=world.clock)
    RetentionRule.objects.filter(pk=rule.pk).update(enabled=True)


@pytest.mark.parametrize("change", (alone, shortened, never_confirmed, edited_since, switched_on))
def test_an_erasure_is_held_against_the_edit_and_the_confirmation_of_its_rule(
    world: World, change: Callable[[World], None]
) -> None:
    """Also when the row was put right again afterwards: the erasure itself shows it."""
    world.delivered()
    before = RetentionRule.objects.count()
    change(world)
    later(world, 5)
    assert (before, retention.run(clock=world.clock)) == (0, 2)
    assert [one for one in differing() if ", rule_in_force: expected False, found True" in one]


def test_who_switches_a_rule_on_again_takes_no_part_in_its_terms(world: World) -> None:
    """The second person is one towards who edited the terms that were confirmed."""
    world.delivered()
    rule = ruled(world)
    for enabled in (False, True):
        rule.enabled = enabled
        configuration.save(rule, by=None, clock=world.clock)
    later(world, 31)
    assert retention.run(clock=world.clock) == 2
    assert differing() == []


def test_a_rule_that_changed_meanwhile_lets_nothing_go(world: World) -> None:
    """What was looked at before the transaction counts for nothing: the rule is read again in it."""
    world.delivered()
    rule = ruled(world)
    later(world, 31)
    due = list(retention.due(rule, world.clock()))
    edited = RetentionRule.objects.get()
    edited.keep_days = 300
    configuration.save(edited, by=world.administrator, clock=world.clock)
    with pytest.raises(Conflict) as refusal:
        erasures.retire(rule, due, clock=world.clock)
    assert refusal.value.code == "retention_not_in_force"
    # In force again, with terms by which none of these is due.
    retention.confirm(edited, by=world.auditor, clock=world.clock)
    assert erasures.retire(rule, due, clock=world.clock) is None
    assert gone() == set()
