"""The admin as a place to read: evidence is shown, found and filtered, and nobody edits it (P11, P14, P18)."""

import json
from html import escape
from typing import Any

import pytest
from django.contrib import admin
from django.db import models
from django.test import Client
from django.urls import reverse

from evidence.admin import EvidenceAdmin
from evidence.documents import NOTIFICATION_PLAN
from evidence.domain import (
    anchors,
    canaries,
    capsules,
    checkpoints,
    configuration,
    epochs,
    erasures,
    heartbeats,
    holds,
    verifications,
)
from evidence.domain.anchors import Kept
from evidence.domain.clock import system_clock
from evidence.enums import Administration, AnchorMeans
from evidence.models import Attempt, AttemptAnswer, Case, Connector, Record, Trouble
from recovery.domain import notices, sets, steps
from recovery.enums import Seen
from recovery.models import ApprovalEntry, Execution, Recovery
from tests.builders import World
from tests.evidence.ledger_keys import Keys
from tests.evidence.watch import appended

pytestmark = pytest.mark.django_db
CONFIGURED = {"connector", "schedule", "person", "pauseswitch", "retrypolicy", "retentionrule"}


def evidence_models() -> list[type[models.Model]]:
    """Everything in the admin that is not configuration."""
    return [model for model in admin.site._registry if model._meta.model_name not in CONFIGURED]


def address(model: type[models.Model], page: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.label_lower.replace('.', '_')}_{page}", args=args)


@pytest.fixture
def finished(world: World, keys: Keys) -> World:
    """A world in which one delivery failed, nobody heard of its retry, people said it arrived, and it was closed.

    Another one was put into a set and abandoned.
    """
    execution = world.unknown().execution
    notices.notice(clock=system_clock)
    world.attested(execution.case, Seen.DELIVERED, world.approver, world.analyst)
    playbook = world.playbook()
    steps.tick(
        Recovery.objects.get(), "check_arrival", done=True, note="", by=world.analyst, clock=system_clock
    )
    world.closed(playbook, "webhook", (execution.execution_id,))
    (case,) = world.failed()
    sets.choose([case.case_id], {"state": "failed"}, by=world.analyst, clock=system_clock)
    world.disposed(case)
    heartbeats.beat("worker-1", clock=system_clock)
    verifications.ask(by=world.auditor, clock=system_clock)
    world.failed()
    holds.place(case.case_id, reason="court", by=world.auditor, clock=system_clock)
    route = Record.objects.filter(kind=NOTIFICATION_PLAN.name).latest("index")
    erasures.propose([route.record_id], "law", "asked", by=world.administrator, clock=system_clock)
    proposal = epochs.propose(
        reason="restored", by=world.administrator, clock=system_clock, although_not_behind=True
    )
    epochs.confirm(proposal, by=world.auditor, clock=system_clock)
    keys.add()
    anchors.hold(
        checkpoints.to_hand_out(clock=system_clock),
        Kept(AnchorMeans.FILE, "/mnt/heads", b""),
        administered_by=Administration.US,
        by=world.auditor,
        clock=system_clock,
    )
    capsules.freeze(case, by=world.auditor, clock=system_clock)
    canaries.send(case.connector, by=world.operator, clock=system_clock)
    # A connector that is told would be a second one.
    Trouble.objects.create(
        trouble_id="connectortrouble-1",
        connector=case.connector,
        since=system_clock(),
        waiting=1,
        through="chat",
        announced_at=system_clock(),
        record_hash="0" * 64,
    )
    return world


@pytest.fixture
def client(finished: World) -> Client:
    client = Client()
    client.force_login(finished.administrator)
    return client


def test_everything_that_can_be_is_in_the_admin() -> None:
    shown = {model._meta.label_lower for model in admin.site._registry}
    evidence = "record sealentry ledgerhead notificationplan route auditpackage deliveryplan case attempt"
    asked = "retryplan retrydecision approvalplan approvalentry vote notice retryset disposition"
    recovery = f"{asked} workerrun execution attestation recovery playbook closure steptick possibleattempt"
    assert shown == {
        *(
            f"evidence.{name}"
            for name in (
                *evidence.split(),
                "rolegrant",
                "heartbeat",
                "verification",
                "epochproposal",
                "erasure",
                "legalhold",
                "ledgerkey",
                "checkpoint",
                "anchor",
                "capsule",
                "streamhead",
                "senddiagnostic",
                "canary",
                "trouble",
            )
        ),
        *(f"recovery.{name}" for name in recovery.split()),
        *(f"evidence.{name}" for name in CONFIGURED - {"retrypolicy"}),
        "recovery.retrypolicy",
    }
    assert all(isinstance(admin.site._registry[model], EvidenceAdmin) for model in evidence_models())


def test_every_page_of_evidence_is_readable_and_reading_writes_nothing(client: Client) -> None:
    with appended() as log:
        for model in evidence_models():
            rows = list(model._default_manager.all())
            assert rows, f"the walk left no {model.__name__}"
            listed = client.get(address(model, "changelist"))
            assert listed.status_code == 200
            assert {row.pk for row in listed.context["cl"].queryset} == {row.pk for row in rows}
            for row in rows[:5]:
                page = client.get(address(model, "change", row.pk))
                assert page.status_code == 200, f"{model.__name__} {row.pk}"
                assert 'name="_save"' not in page.content.decode()
                assert client.get(address(model, "history", row.pk)).status_code == 200
    assert log.kinds == []


def test_nobody_adds_changes_or_deletes_evidence(finished: World) -> None:
    client = Client()
    client.force_login(finished.administrator)
    for model in evidence_models():
        row = model._default_manager.first()
        assert row is not None
        before = list(model._default_manager.order_by("pk").values())
        for answer in (
            client.get(address(model, "add")),
            client.post(address(model, "add"), {"reason": "x"}),
            client.post(address(model, "change", row.pk), {"state": "delivered", "_save": "Save"}),
            client.get(address(model, "delete", row.pk)),
            client.post(address(model, "delete", row.pk), {"post": "yes"}),
            client.post(
                address(model, "changelist"), {"action": "delete_selected", "_selected_action": [row.pk]}
            ),
        ):
            assert answer.status_code == 403, model.__name__
        assert list(model._default_manager.order_by("pk").values()) == before


def test_a_record_page_shows_document_hash_and_place(client: Client) -> None:
    for record in Record.objects.order_by("-index")[:10]:
        page = client.get(address(Record, "change", record.index)).content.decode()
        document = json.loads(bytes(record.body))
        assert record.digest in page
        assert document["nonce"] in page
        assert (
            address(Record, "changelist").replace("record", "sealentry") + f"{record.index}/change/" in page
        )


def test_what_somebody_wrote_into_a_record_is_text_on_the_page(finished: World, client: Client) -> None:
    configuration.pause(
        "*", reason="<script>alert(1)</script>", by=finished.administrator, clock=system_clock
    )
    record = Record.objects.order_by("-index").first()
    assert record is not None
    page = client.get(address(Record, "change", record.index)).content.decode()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_records_are_found_by_id_hash_case_and_actor_and_filtered_by_kind(
    finished: World, client: Client
) -> None:
    record = Record.objects.order_by("-index").first()
    assert record is not None
    case = Case.objects.earliest("pk")

    def found(**query: str) -> set[int]:
        page = client.get(address(Record, "changelist"), query)
        assert page.status_code == 200
        return {row.index for row in page.context["cl"].result_list}

    assert found(q=record.record_id) == {record.index}
    assert found(q=record.digest[:12]) == {record.index}
    about = {
        row.index for row in Record.objects.all() if case.case_id in json.loads(bytes(row.body))["cases"]
    }
    assert about
    assert found(q=case.case_id) == about
    by = {
        row.index
        for row in Record.objects.all()
        if json.loads(bytes(row.body))["actor"]["name"] == finished.approver.username
    }
    assert by
    assert found(q=finished.approver.username) == by
    assert found(q="no such thing") == set()
    kinds = {row.index for row in Record.objects.filter(kind=record.kind)}
    assert found(kind=record.kind) == kinds


def test_every_search_field_and_filter_answers(client: Client) -> None:
    tried = 0
    for model in evidence_models():
        assert client.get(address(model, "changelist"), {"q": "x'\"<%\\0 y"}).status_code == 200
        shown = client.get(address(model, "changelist")).context["cl"]
        for spec in shown.filter_specs:
            for choice in spec.choices(shown):
                assert client.get(address(model, "changelist") + choice["query_string"]).status_code == 200
                tried += 1
    assert tried > 50


def test_rows_are_found_by_their_ids(client: Client) -> None:
    case = Case.objects.earliest("pk")
    execution, entry = Execution.objects.get(), ApprovalEntry.objects.get()
    for model, term, wanted in (
        (Case, case.case_id, {case.pk}),
        (Case, case.case_id[:-1], set()),
        (Attempt, case.case_id, set(case.attempts.values_list("pk", flat=True))),
        (Execution, execution.claim_id, {execution.pk}),
        (ApprovalEntry, entry.manifest_digest[:10], {entry.pk}),
    ):
        page = client.get(address(model, "changelist"), {"q": term})
        assert {row.pk for row in page.context["cl"].result_list} == wanted


def test_pages_link_to_the_record_and_show_what_was_approved(client: Client) -> None:
    entry, execution = ApprovalEntry.objects.get(), Execution.objects.get()
    page = client.get(address(ApprovalEntry, "change", entry.pk)).content.decode()
    assert entry.manifest_digest in page
    assert "&quot;" in page.partition("<pre>")[2].partition("</pre>")[0]
    page = client.get(address(Execution, "change", execution.pk)).content.decode()
    for record_id in (execution.execution_id, execution.claim_id):
        index = Record.objects.get(record_id=record_id).index
        assert address(Record, "change", index) in page
    answer = AttemptAnswer.objects.first()
    assert answer is not None
    assert answer.excerpt
    assert (
        escape(answer.excerpt) in client.get(address(Attempt, "change", answer.attempt.pk)).content.decode()
    )


def test_what_would_let_somebody_act_is_not_shown(client: Client) -> None:
    execution = Execution.objects.get()
    Case.objects.update(lease_token="case-lease-token")
    assert execution.lease_token
    for model in (Case, Execution):
        for row in model._default_manager.all():
            page = client.get(address(model, "change", row.pk)).content.decode()
            assert execution.lease_token not in page
            assert "case-lease-token" not in page


def test_a_list_costs_the_same_whatever_its_length(
    client: Client, finished: World, django_assert_max_num_queries: Any
) -> None:
    assert Connector.objects.count() == 1
    for model in evidence_models():
        client.get(address(model, "changelist"))
        with django_assert_max_num_queries(10):
            client.get(address(model, "changelist"))
