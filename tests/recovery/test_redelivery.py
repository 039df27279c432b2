"""No second try without approval: posting the same content again is no way round it (P1, W5, W6, W16)."""

import pytest
from django.db import IntegrityError, transaction

from evidence.domain import configuration, deliveries, records
from evidence.domain.deliveries import Delivered, DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import CaseState
from evidence.errors import Conflict
from evidence.models import Attempt, AuditPackage, Case, Connector, DeliveryPlan
from tests.builders import World, connector
from tests.recovery.checks import appended, unreachable_connectors


def post(world: World, *providers: str, **how: str) -> Delivered:
    return deliveries.deliver_audit(
        DeliveryRequest(filters=PackageFilters(), providers=providers, retries=0, timeout_s=5.0, **how),
        by=world.analyst,
        clock=world.clock,
    )


def refused(world: World, *providers: str, **how: str) -> Conflict:
    """The post is refused and nothing arrives; not even a plan is written."""
    before, plans = len(world.receiver.log), DeliveryPlan.objects.count()
    with appended() as kinds, pytest.raises(Conflict) as caught:
        post(world, *providers, **how)
    assert kinds == []
    assert (len(world.receiver.log), DeliveryPlan.objects.count()) == (before, plans)
    return caught.value


def test_p1_the_same_content_again_is_refused_while_its_case_is_unsettled(world: World) -> None:
    (case,) = world.failed()
    error = refused(world)
    assert (error.code, error.extra["case"]) == ("delivery_unsettled", case.case_id)
    assert case.case_id in error.detail


@pytest.mark.parametrize(
    "how", ({"cadence": "hourly"}, {"schedule_ref": "nightly"}, {"next_delivery_at": "2026-12-01"})
)
def test_p1_another_label_is_no_other_content(world: World, how: dict[str, str]) -> None:
    world.failed()
    assert refused(world, **how).code == "delivery_unsettled"


def test_p1_a_failed_retry_leaves_it_refused(world: World) -> None:
    world.failed()
    world.approved()
    assert refused(world).code == "delivery_unsettled"
    world.receiver.behave("/webhook", status=500)
    world.ran()
    assert refused(world).code == "delivery_unsettled"
    assert Attempt.objects.count() == 2


def test_w16_after_a_success_the_same_content_is_a_delivery_of_its_own(world: World) -> None:
    (first,) = world.failed()
    world.approved()
    world.ran()
    before = len(world.receiver.log)
    done = post(world)
    (second,) = done.cases
    assert (done.success, done.package.existing) == (True, True)
    assert second.plan.delivery_id != first.plan.delivery_id
    assert second.package == first.package
    assert len(world.receiver.log) == before + 1
    payload = records.payload_of(done.plan)
    assert payload is not None
    assert payload["ordinal"] == 2
    # And once more: the third of its kind.
    again = records.payload_of(post(world).plan)
    assert again is not None
    assert again["ordinal"] == 3
    assert Case.objects.filter(state=CaseState.DELIVERED).count() == 3
    assert AuditPackage.objects.count() == 1


def test_of_several_connectors_the_free_ones_are_sent_and_the_others_held(two: World) -> None:
    (case,) = two.failed("webhook")
    before = len(two.receiver.log)
    done = post(two, "webhook", "backup")
    assert [one.connector.key for one in done.cases] == ["backup"]
    assert done.held == [{"provider": "webhook", "case": case.case_id, "code": "delivery_unsettled"}]
    assert done.success is True
    assert len(two.receiver.log) == before + 1
    assert two.receiver.log[-1].path == "/backup"
    error = refused(two, "webhook")
    assert error.extra["held"] == done.held


def test_changed_content_is_sent_and_names_what_is_unsettled(world: World) -> None:
    (case,) = world.failed()
    world.acknowledged()
    done = post(world)
    assert done.unsettled_cases == [case.case_id]
    assert [one.case_id for one in done.cases] != [case.case_id]
    assert done.success is True
    case.refresh_from_db()
    assert case.state == CaseState.FAILED


@pytest.mark.tampers
def test_p1_the_database_refuses_a_second_case_of_undelivered_content(world: World) -> None:
    (case,) = world.failed()
    other = DeliveryPlan.objects.create(
        delivery_id="gordackdelivery-forged",
        package=case.package,
        created_at=world.clock(),
        created_by=world.analyst,
        record_hash="0" * 64,
    )
    with pytest.raises(IntegrityError), transaction.atomic():
        Case.objects.create(
            case_id="forged.webhook",
            plan=other,
            package=case.package,
            connector=case.connector,
            content_hash=case.content_hash,
            state=CaseState.FAILED,
            created_at=world.clock(),
            created_by=world.analyst,
        )


@pytest.mark.parametrize("scope", ("*", "webhook"))
def test_a_paused_connector_gets_nothing_and_nothing_is_half_done(world: World, scope: str) -> None:
    world.announced()
    world.acknowledged()
    configuration.pause(scope, reason="freeze", by=world.administrator, clock=world.clock)
    before = len(world.receiver.log)
    with pytest.raises(Conflict) as caught:
        post(world)
    assert caught.value.code == "sending_paused"
    assert (Case.objects.count(), DeliveryPlan.objects.count()) == (0, 0)
    assert len(world.receiver.log) == before
    configuration.resume(scope, by=world.administrator, clock=world.clock)
    assert post(world).success is True


def test_w26_what_is_not_configured_or_disabled_is_an_answer(two: World) -> None:
    two.announced()
    two.acknowledged()
    assert refused(two, "splunk").code == "connector_not_configured"
    row = Connector.objects.get(key="backup")
    row.enabled = False
    configuration.save(row, by=None, clock=two.clock)
    assert refused(two, "backup").code == "connector_disabled"
    assert [case.connector.key for case in post(two).cases] == ["webhook"]


def test_w27_one_misconfigured_connector_fails_alone(world: World) -> None:
    connector("broken", "", url_ref="env:CAVRA_TEST_UNSET")
    world.announced()
    world.acknowledged()
    done = post(world)
    assert {case.connector.key: case.state for case in done.cases} == {
        "broken": CaseState.FAILED,
        "webhook": CaseState.DELIVERED,
    }
    attempt = Attempt.objects.get(case__connector__key="broken")
    assert (attempt.answer, attempt.failure_class) == ("not_sent", "auth_setup")


def test_more_connectors_than_one_record_names_are_refused_in_words(world: World) -> None:
    unreachable_connectors(200)
    world.announced()
    world.acknowledged()
    before = len(world.receiver.log)
    with pytest.raises(Conflict) as caught:
        post(world)
    assert caught.value.code == "too_many_connectors"
    assert (Case.objects.count(), len(world.receiver.log)) == (0, before)
