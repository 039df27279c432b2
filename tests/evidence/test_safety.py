"""Public safety where people and receivers meet the ledger: refused, replaced, or let through and reviewed (P18)."""

import base64
import json
import random
import re
from dataclasses import replace
from typing import Any

import pytest
from django.test import Client

from evidence.console import pages
from evidence.documents import (
    AUDIT_PACKAGE,
    CONNECTOR_DELIVERY,
    DELIVERY_PLAN,
    KINDS,
    LEGAL_HOLD,
    NOTIFICATION_ACK,
    PERSON,
    PUBLIC_SAFETY_OVERRIDE,
    PUBLIC_SAFETY_REVIEW,
)
from evidence.domain import (
    configured_secrets,
    deliveries,
    holds,
    ledger,
    overrides,
    packages,
    people,
    public_safety,
    records,
    safety,
    sending,
    verification,
)
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.domain.safety_rules import RULES, RULESET
from evidence.enums import Role, SafetyVerdict
from evidence.errors import Conflict, InvalidInput, NotAllowed
from evidence.models import AttemptAnswer, Case, Connector, LegalHold, Person, Record, Route
from recovery.documents import APPROVAL_DECISION, APPROVAL_PLAN
from recovery.domain import approval_plans
from recovery.models import ApprovalEntry
from tests.builders import World, connector, person
from tests.endpoints import client, written
from tests.evidence.safety_corpus import SECRETS

WHY = "The token of the public sandbox, as its manual prints it."
PAGE = "/console/public-safety/"
LIST = "/api/v1/public-safety/overrides"


def secret(rule: str = "github-token") -> str:
    return SECRETS[rule][0](random.Random(6))


def signed_in(who: Person) -> Client:
    made = Client()
    made.force_login(who)
    return made


def answer_address(world: World) -> str:
    return (
        "/runtime/go-pilot/rollback-drill-notifications/" + world.schedule.schedule_id + "/acknowledgements"
    )


def answered(world: World, notes: str, /, **more: Any) -> Any:
    """An owner's answer over HTTP."""
    body = {"provider": world.providers[0], "notes": notes, **more}
    return client(world.analyst).post(answer_address(world), body, format="json")


def held(world: World, reason: str, why: str = WHY, *, by: Person | None = None) -> LegalHold:
    """A short verb with a text of its own."""
    with safety.overriding(why):
        return holds.place("*", reason=reason, by=by or world.auditor, clock=world.clock)


def newest(kind: Any) -> dict[str, Any]:
    return records.load(Record.objects.filter(kind=kind.name).order_by("-index")[0].body)


def controls() -> list[str]:
    """The last control of every record there is."""
    return [
        records.load(record.body)["payload"]["controls"][-1] for record in Record.objects.order_by("index")
    ]


# --- refused --------------------------------------------------------------------------------------------------------


def test_p18_a_refusal_names_field_and_rule_and_never_the_value(world: World) -> None:
    world.announced()
    before, said = written(), secret()
    answer = answered(world, f"It works again with {said}.")
    assert answer.status_code == 400
    assert answer.json()["code"] == "public_safety"
    assert answer.json()["errors"] == {"notes": ["matches rule github-token"]}
    assert said[6:] not in answer.content.decode()
    assert written() == before
    assert Route.objects.exclude(notes="").count() == 0


@pytest.mark.parametrize("rule", ("slack-webhook", "private-url", "named-secret", "json-web-token"))
def test_p18_text_is_refused_in_any_field_that_ends_in_a_record(world: World, rule: str) -> None:
    world.announced()
    for name in ("notes", "acknowledged_by"):
        refused = answered(world, "", **{name: f"see {secret(rule)}"})
        assert refused.status_code == 400, name
        assert name in refused.json()["errors"]


def test_names_and_references_are_looked_at_where_they_stand_deep(world: World) -> None:
    body = {
        "routes": [
            {"schedule_id": world.schedule.schedule_id, "provider": "webhook", "external_ref": secret()}
        ]
    }
    address = "/runtime/go-pilot/rollback-drill-notifications/acknowledgements/bulk"
    refused = client(world.analyst).post(address, body, format="json")
    if refused.status_code == 200:  # the reference stands beside the routes there
        refused = client(world.analyst).post(
            address, {"routes": body["routes"], "external_ref": secret()}, format="json"
        )
    assert refused.json()["code"] == "public_safety"


def test_every_record_names_rule_set_and_result_and_no_more(world: World) -> None:
    world.delivered()
    assert set(controls()) == {f"{RULESET}:clean"}
    plan = newest(DELIVERY_PLAN)["payload"]["controls"]
    assert plan == [*DELIVERY_PLAN.controls, f"{RULESET}:clean"]


# --- configured secrets, by value -----------------------------------------------------------------------------------

PLAIN_SECRET = "tulips in amsterdam"


@pytest.mark.parametrize(
    "form",
    (
        "{0}",
        "tulips%20in%20amsterdam",
        base64.b64encode(b"svc:" + PLAIN_SECRET.encode()).decode(),
        PLAIN_SECRET.encode().hex(),
    ),
)
def test_p18_a_secret_of_a_connector_is_known_by_its_value(
    world: World, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    said = form.format(PLAIN_SECRET)
    assert public_safety.find(said) == []
    world.announced()
    assert answered(world, said).status_code == 200
    monkeypatch.setenv("FLOWERS", PLAIN_SECRET)
    connector("flowers", world.receiver.url("/flowers"), token_ref="env:FLOWERS")
    for more in ({}, {"public_safety_override": {"reason": WHY}}):
        refused = answered(world, said, **more)
        assert refused.status_code == 400
        assert refused.json()["errors"] == {"notes": ["matches rule configured-secret"]}
        assert refused.json()["may_be_overridden"] is False
        assert PLAIN_SECRET not in refused.content.decode()


def test_p18_nobody_can_let_a_configured_secret_through(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWERS", PLAIN_SECRET)
    connector("flowers", world.receiver.url("/flowers"), api_key_ref="env:FLOWERS")
    with pytest.raises(InvalidInput, match="configured-secret"):
        held(world, f"about {PLAIN_SECRET}")
    # Nor in the reason for something else.
    with pytest.raises(InvalidInput, match="configured-secret"):
        held(world, f"about {secret()}", f"as in {PLAIN_SECRET}")
    assert LegalHold.objects.count() == 0


def test_references_are_asked_for_once_for_many_records(
    world: World, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    configured_secrets.known()
    with django_assert_num_queries(0):
        configured_secrets.known()
    configured_secrets.forget()
    with django_assert_num_queries(1):
        configured_secrets.known()
    monkeypatch.setattr(configured_secrets, "KEPT_S", 0.0)
    with django_assert_num_queries(1):
        configured_secrets.known()


def test_a_secret_that_another_process_added_is_known_soon(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWERS", PLAIN_SECRET)
    world.announced()
    Connector.objects.update(token_ref="env:FLOWERS")
    monkeypatch.setattr(configured_secrets, "KEPT_S", 0.0)
    assert answered(world, PLAIN_SECRET).status_code == 400
    monkeypatch.setenv("FLOWERS", "daffodils in spring")
    assert answered(world, "daffodils in spring").status_code == 400


@pytest.mark.parametrize("before", (True, False))
def test_p18_a_secret_is_known_while_somebody_else_reads_the_references(
    world: World, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """The first requests of a process come together; and a connector may be saved while one of them reads."""
    monkeypatch.setenv("FLOWERS", PLAIN_SECRET)
    learn, found = configured_secrets._learn, []

    def saved() -> None:
        Connector.objects.update(token_ref="env:FLOWERS")
        configured_secrets.forget()

    def slowly() -> None:
        monkeypatch.setattr(configured_secrets, "_learn", learn)
        if before:
            found.append(configured_secrets.known().find(PLAIN_SECRET))
        learn()
        if not before:
            saved()

    if before:
        saved()
    else:
        configured_secrets.forget()
    monkeypatch.setattr(configured_secrets, "_learn", slowly)
    configured_secrets.known()
    found.append(configured_secrets.known().find(PLAIN_SECRET))
    assert all(found)


def test_a_reference_that_leads_nowhere_is_no_fault_of_anybody(world: World) -> None:
    Connector.objects.update(token_ref="env:NOT_SET_ANYWHERE")
    configured_secrets.forget()
    world.announced()
    assert answered(world, "all is well").status_code == 200


# --- let through ----------------------------------------------------------------------------------------------------


def test_p18_a_false_hit_is_let_through_with_a_reason(world: World) -> None:
    world.announced()
    said = secret()
    done = answered(world, f"as in {said}", public_safety_override={"reason": WHY})
    assert done.status_code == 200
    acknowledged = newest(NOTIFICATION_ACK)
    assert acknowledged["payload"]["notes"] == f"as in {said}"
    assert acknowledged["payload"]["controls"][-1] == f"{RULESET}:overridden"
    record = Record.objects.get(kind=PUBLIC_SAFETY_OVERRIDE.name)
    override = records.load(record.body)
    assert override["actor"]["name"] == world.analyst.username
    assert override["payload"]["overridden_record_id"] == acknowledged["id"]
    assert override["payload"]["reason"] == WHY
    assert [(hit["field"], hit["rule"]) for hit in override["payload"]["hits"]] == [("notes", "github-token")]
    assert override["references"][0]["id"] == acknowledged["id"]
    assert said not in bytes(record.body).decode()
    assert list(verification.verify()) == []


def test_what_was_let_through_once_is_not_asked_about_again_and_goes_out(world: World) -> None:
    world.announced()
    said = f"CHG-{secret('private-url')}"
    assert answered(world, said, public_safety_override={"reason": WHY}).status_code == 200
    assert answered(world, f"again: {said}").status_code == 200
    done = deliveries.deliver_audit(
        DeliveryRequest(filters=PackageFilters(), retries=0, timeout_s=5.0),
        by=world.analyst,
        clock=world.clock,
    )
    assert done.success
    assert newest(AUDIT_PACKAGE)["payload"]["controls"][-1] == f"{RULESET}:overridden"
    assert Record.objects.filter(kind=PUBLIC_SAFETY_OVERRIDE.name).count() == 1


def test_the_same_text_in_many_records_of_one_act_is_listed_once(world: World) -> None:
    said = f"as in {secret()}"
    with safety.overriding(WHY):
        drafts = [drafted(world, LEGAL_HOLD, by=world.analyst, reason=said) for _ in range(3)]
    stored = ledger.append(drafts)
    assert [record.record_id for record in stored] == [draft.record_id for draft in drafts]
    (override,) = overrides.described(overrides.overrides())
    assert override.said["overridden_record_id"] == drafts[0].record_id


def test_nothing_is_let_through_by_a_reason_of_another_request(world: World) -> None:
    world.announced()
    assert answered(world, "fine", public_safety_override={"reason": WHY}).status_code == 200
    assert answered(world, secret()).status_code == 400
    assert Record.objects.filter(kind=PUBLIC_SAFETY_OVERRIDE.name).count() == 0


@pytest.mark.parametrize(
    ("given", "field"),
    (
        ("yes", "public_safety_override"),
        ({}, "public_safety_override.reason"),
        ({"reason": ""}, "public_safety_override.reason"),
        ({"reason": 7}, "public_safety_override.reason"),
        ({"reason": WHY, "who": "me"}, "public_safety_override.who"),
        ({"reason": "as in {secret}"}, "public_safety_override.reason"),
    ),
)
def test_an_override_says_why_in_so_many_words(world: World, given: Any, field: str) -> None:
    world.announced()
    given = json.loads(json.dumps(given).replace("{secret}", secret()))
    refused = answered(world, secret(), public_safety_override=given)
    assert refused.status_code == 400
    assert list(refused.json()["errors"]) == [field]


def test_a_verb_that_fails_leaves_no_override(world: World) -> None:
    with pytest.raises(NotAllowed):
        held(world, secret(), by=world.analyst)
    assert Record.objects.filter(kind=PUBLIC_SAFETY_OVERRIDE.name).count() == 0


# --- what leaves -----------------------------------------------------------------------------------------------------


@pytest.fixture
def unruled(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No rules for now: what is written was written before there was a rule for it."""
    monkeypatch.setattr(public_safety, "RULES", ())
    return monkeypatch


def test_p18_what_would_leave_is_looked_at_before_a_case_is_opened(
    world: World, unruled: pytest.MonkeyPatch
) -> None:
    world.announced()
    Route.objects.update(external_ref=secret())
    client(world.analyst).post(
        "/runtime/go-pilot/rollback-drill-notifications/acknowledgements/audit-package", {}, format="json"
    )
    unruled.setattr(public_safety, "RULES", RULES)
    sent = len(world.receiver.log)
    refused = client(world.analyst).post(
        "/runtime/go-pilot/rollback-drill-notifications/acknowledgements/audit-delivery",
        {"retries": 0},
        format="json",
    )
    assert refused.status_code == 400
    assert refused.json()["code"] == "public_safety"
    assert any(name.startswith("sends.routes.") for name in refused.json()["errors"])
    assert len(world.receiver.log) == sent
    assert Record.objects.filter(kind=DELIVERY_PLAN.name).count() == 0


def test_p18_what_would_leave_is_looked_at_before_it_is_frozen(
    world: World, unruled: pytest.MonkeyPatch
) -> None:
    world.announced()
    world.receiver.behave("/webhook", status=503)
    Route.objects.update(external_ref=secret())
    deliveries.deliver_audit(
        DeliveryRequest(filters=PackageFilters(), retries=0, timeout_s=5.0),
        by=world.analyst,
        clock=world.clock,
    )
    world.reviewed(world.planned())
    unruled.setattr(public_safety, "RULES", RULES)
    (case,) = Case.objects.all()
    with pytest.raises(InvalidInput, match="github-token") as refusal:
        approval_plans.request(by=world.analyst, clock=world.clock, cases=[case.case_id])
    assert all(name.startswith(f"sends.{case.case_id}.") for name in refusal.value.errors)
    with safety.overriding(WHY):
        approval_plans.request(by=world.analyst, clock=world.clock)
    assert newest(APPROVAL_PLAN)["payload"]["controls"][-1] == f"{RULESET}:overridden"
    assert Record.objects.filter(kind=PUBLIC_SAFETY_OVERRIDE.name).count() == 1


def test_p18_what_is_refused_keeps_no_other_case_from_being_asked_for(
    world: World, unruled: pytest.MonkeyPatch
) -> None:
    world.announced()
    world.receiver.behave("/webhook", status=503)
    request = DeliveryRequest(filters=PackageFilters(), retries=0, timeout_s=5.0)
    deliveries.deliver_audit(request, by=world.analyst, clock=world.clock)
    Route.objects.update(external_ref=secret())
    deliveries.deliver_audit(request, by=world.analyst, clock=world.clock)
    well, refused = Case.objects.order_by("pk")
    world.reviewed(world.planned())
    unruled.setattr(public_safety, "RULES", RULES)
    approval_plans.request(by=world.analyst, clock=world.clock)
    document = newest(APPROVAL_PLAN)["payload"]
    said = {one["case"]: one for one in document["approval_decisions"]}
    assert said[well.case_id]["action"] == "request_approval"
    assert said[refused.case_id]["action"] == "wait_for_public_safety"
    assert "github-token" in said[refused.case_id]["reason"]
    assert f"sends.{refused.case_id}." in said[refused.case_id]["reason"]
    assert (document["approval_required_count"], document["waiting_count"]) == (1, 1)
    assert document["controls"][-1] == f"{RULESET}:clean"
    assert [entry.case_id for entry in ApprovalEntry.objects.all()] == [well.pk]
    assert secret() not in json.dumps(document)


# --- what has to be written down -------------------------------------------------------------------------------------


def test_p18_what_happened_is_recorded_without_what_matches(world: World) -> None:
    """A receipt's words are ours and fixed; if they ever were not, the outcome is recorded all the same."""
    world.announced()
    said = secret()
    opened = deliveries.open_plan(
        packages.freeze(PackageFilters(), by=world.analyst, clock=world.clock).package,
        list(Connector.objects.all()),
        DeliveryRequest(filters=PackageFilters()),
        by=world.analyst,
        clock=world.clock,
    )
    (receipt,) = sending.send_cases(opened.cases, retries=0, timeout_s=5)
    bent = replace(receipt, error=f"refused with {said}")
    draft = deliveries.record_first_attempts(opened.cases, [bent], by=world.analyst, clock=world.clock)
    payload = draft.view[CONNECTOR_DELIVERY.payload_key]
    assert payload["deliveries"][0]["error"] == "refused with [redacted]"
    assert payload["controls"][-1] == f"{RULESET}:redacted"
    assert list(verification.verify()) == []


def test_p18_what_a_receiver_says_is_kept_without_what_matches(world: World) -> None:
    """Its own secrets are none of ours, so the sender knows nothing of them."""
    world.announced()
    said = f"cannot log in with {secret()} at https://db.internal/x"
    world.receiver.behave("/webhook", status=503, body=said.encode())
    deliveries.deliver_audit(
        DeliveryRequest(filters=PackageFilters(), retries=0, timeout_s=5.0),
        by=world.analyst,
        clock=world.clock,
    )
    assert AttemptAnswer.objects.get().excerpt == "cannot log in with [redacted] at https[redacted]/x"


def drafted(world: World, kind: Any, *, by: Person | None, claimed_actor: str = "", **said: str) -> Any:
    """A document of ``kind`` with empty fields but these."""
    empty = {str: "", int: 0, bool: False}
    return records.draft(
        kind,
        records.mint_id(kind),
        {name: said.get(name, empty.get(of, [])) for name, of in kind.own_fields.items()},
        at=world.clock(),
        by=by,
        claimed_actor=claimed_actor,
    )


def test_p18_what_the_service_writes_by_itself_is_never_refused(world: World) -> None:
    said = secret()
    with pytest.raises(InvalidInput):
        drafted(world, LEGAL_HOLD, by=world.auditor, reason=said)
    document = records.load(
        drafted(world, LEGAL_HOLD, by=None, reason=f"as in {said}", claimed_actor=said).body
    )
    assert document["payload"]["reason"] == "as in [redacted]"
    assert document["actor"]["claimed"] == "[redacted]"
    # What somebody let through stands there as well.
    held(world, said)
    document = records.load(drafted(world, LEGAL_HOLD, by=None, reason=f"as in {said}").body)
    assert document["payload"]["reason"] == f"as in {said}"
    assert document["payload"]["controls"][-1] == f"{RULESET}:overridden"


def test_an_account_with_an_odd_name_is_still_deactivated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = person(Role.VIEWER, name="tulips-amsterdam")
    monkeypatch.setenv("FLOWERS", "tulips-amsterdam")
    connector("flowers", world.receiver.url("/flowers"), token_ref="env:FLOWERS")
    people.set_active(named, False, by=world.administrator, clock=world.clock)
    assert newest(PERSON)["payload"]["person_name"] == "tulips-amsterdam"


# --- reviewed by somebody else --------------------------------------------------------------------------------------


def test_p18_a_second_person_reviews_it_once(world: World) -> None:
    held(world, f"as in {secret()}")
    (row,) = overrides.overrides(reviewed=False)
    service = person(Role.AUDITOR, owner=world.auditor)
    for own in (world.auditor, service):
        with pytest.raises(NotAllowed) as refusal:
            overrides.review(row, verdict=SafetyVerdict.FALSE_HIT, by=own, clock=world.clock)
        assert refusal.value.code == "second_person_required"
    with pytest.raises(NotAllowed):
        overrides.review(row, verdict=SafetyVerdict.FALSE_HIT, by=world.approver, clock=world.clock)
    overrides.review(row, verdict=SafetyVerdict.FALSE_HIT, by=world.administrator, clock=world.clock)
    with pytest.raises(Conflict) as again:
        overrides.review(
            row, verdict=SafetyVerdict.LEAK, notes="x", by=world.administrator, clock=world.clock
        )
    assert again.value.code == "override_reviewed"
    assert overrides.overrides(reviewed=False).count() == 0
    (shown,) = overrides.described(overrides.overrides())
    assert shown.review is not None
    assert shown.review.reviewed_by == world.administrator.username
    assert list(verification.verify()) == []


def test_p18_what_was_a_leak_is_not_let_through_again(world: World) -> None:
    said = f"as in {secret()}"
    held(world, said)
    held(world, f"once more {said}", "")
    row = overrides.overrides().get()
    with pytest.raises(InvalidInput, match="Say what was done"):
        overrides.review(row, verdict=SafetyVerdict.LEAK, by=world.administrator, clock=world.clock)
    overrides.review(
        row, verdict=SafetyVerdict.LEAK, notes="Token changed.", by=world.administrator, clock=world.clock
    )
    for reason in ("", WHY):
        with pytest.raises(InvalidInput, match="github-token") as refusal:
            held(world, said, reason)
        assert refusal.value.extra["may_be_overridden"] is False
    world.announced()
    refused = answered(world, said, public_safety_override={"reason": WHY})
    assert (refused.status_code, refused.json()["may_be_overridden"]) == (400, False)
    assert overrides.overrides().count() == 1
    assert newest(PUBLIC_SAFETY_REVIEW)["payload"]["verdict"] == "leak"


def test_overrides_are_listed_filtered_and_reviewed_over_http(world: World) -> None:
    held(world, f"as in {secret()}")
    held(world, f"as at {secret('private-url')}", by=world.administrator)
    api = client(world.administrator)
    listed = api.get(LIST).json()
    assert listed["total"] == 2
    second, first = listed["items"]
    assert first["hits"] == [{"field": "reason", "rule": "github-token"}]
    assert first["reason"] == WHY
    assert first["review"] is None
    assert first["overridden_record_id"].startswith("legalhold-")
    for query, found in (
        ("rule=private-url", [second]),
        (f"actor={world.auditor.username}", [first]),
        (f"record_id={first['overridden_record_id']}", [first]),
        ("reviewed=true", []),
        ("limit=1", [second]),
        (f"limit=1&cursor={api.get(f'{LIST}?limit=1').json()['cursor']}", [first]),
    ):
        assert api.get(f"{LIST}?{query}").json()["items"] == found, query
    assert api.get(f"{LIST}?reviewed=perhaps").status_code == 400
    done = api.post(f"{LIST}/{first['override_id']}/reviews", {"verdict": "false_hit"}, format="json")
    assert done.status_code == 200
    assert done.json()["override"]["review"]["verdict"] == "false_hit"
    assert [one["override_id"] for one in api.get(f"{LIST}?reviewed=false").json()["items"]] == [
        second["override_id"]
    ]
    own = api.post(f"{LIST}/{second['override_id']}/reviews", {"verdict": "false_hit"}, format="json")
    assert (own.status_code, own.json()["code"]) == (403, "second_person_required")
    assert client(world.analyst).get(LIST).status_code == 403


# --- in the browser --------------------------------------------------------------------------------------------------


def test_the_console_asks_why_after_a_refusal_and_sends_the_same_again(world: World) -> None:
    auditor, said = signed_in(world.auditor), f"as in {secret()}"
    form = {"scope": "*", "reason": said}
    refused = auditor.post("/console/erasures/hold/", form)
    page = refused.content.decode()
    assert refused.status_code == 400
    assert "matches rule github-token" in page
    assert "Why it is no secret" in page
    assert 'name="public_safety_override"' in page
    assert LegalHold.objects.count() == 0
    done = auditor.post("/console/erasures/hold/", {**form, "public_safety_override": WHY})
    assert done.status_code == 302
    assert LegalHold.objects.get().reason == said
    assert overrides.overrides().count() == 1


def test_the_console_asks_nothing_where_nothing_was_refused_or_may_be_let_through(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    auditor = signed_in(world.auditor)
    empty = auditor.post("/console/erasures/hold/", {"scope": "*", "reason": ""}).content.decode()
    assert "public_safety_override" not in empty
    monkeypatch.setenv("FLOWERS", PLAIN_SECRET)
    connector("flowers", world.receiver.url("/flowers"), token_ref="env:FLOWERS")
    page = auditor.post(
        "/console/erasures/hold/", {"scope": "*", "reason": f"about {PLAIN_SECRET}"}
    ).content.decode()
    assert "configured-secret" in page
    assert "public_safety_override" not in page
    assert "about [redacted]" in page
    assert PLAIN_SECRET not in page


def test_w28_a_form_that_is_wrong_elsewhere_shows_no_secret_either(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWERS", PLAIN_SECRET)
    connector("flowers", world.receiver.url("/flowers"), token_ref="env:FLOWERS")
    page = signed_in(world.auditor).post(
        "/console/erasures/hold/", {"scope": "", "reason": f"about {PLAIN_SECRET}"}
    )
    assert page.status_code == 400
    assert "about [redacted]" in page.content.decode()
    assert PLAIN_SECRET not in page.content.decode()


def test_a_password_is_asked_for_again_and_never_written(world: World) -> None:
    (entry,) = (world.failed(), world.requested())[1]
    approver = signed_in(world.approver)
    address = f"/console/cases/{entry.case.case_id}/act/decide/"
    form = {
        "state": "denied",
        "notes": secret(),
        "entry_id": entry.entry_id,
        "manifest_digest": entry.manifest_digest,
        "password": "correct horse battery",
    }
    found = [
        address
        for address in (f"/console/cases/{entry.case.case_id}/decide/", address)
        if approver.post(address, form).status_code == 400
    ]
    assert len(found) == 1
    page = approver.post(found[0], form).content.decode()
    assert "correct horse battery" not in page
    assert 'id="override-password"' in page
    assert approver.post(found[0], {**form, "public_safety_override": WHY}).status_code in (200, 302)
    assert newest(APPROVAL_DECISION)["payload"]["controls"][-1] == f"{RULESET}:overridden"


def test_the_page_lists_what_waits_and_takes_a_review(world: World) -> None:
    held(world, f"as in {secret()}")
    auditor, administrator = signed_in(world.auditor), signed_in(world.administrator)
    assert "Somebody else reviews this" in auditor.get(PAGE).content.decode()
    page = administrator.get(PAGE).content.decode()
    assert WHY in page
    assert "github-token" in page
    address = f"{PAGE}{overrides.overrides().get().record_id}/review/"
    refused = administrator.post(address, {"verdict": "leak", "notes": ""})
    assert refused.status_code == 400
    page = refused.content.decode()
    assert "Say what was done about it" in page
    (field,) = re.findall(r'<li><a href="#([^"]+)">Notes', page)
    assert f'<textarea name="notes" cols="40" rows="2" aria-invalid="true" aria-describedby="{field}' in page
    assert f'id="{field}"' in page
    done = administrator.post(address, {"verdict": "leak", "notes": "Token changed."}, follow=True)
    assert "Reviewed: a leak" in done.content.decode()
    assert "Nothing waits" in done.content.decode()
    for other in (world.analyst, world.approver):
        assert signed_in(other).get(PAGE).status_code == 403
    assert administrator.post(f"{PAGE}nothing/review/", {"verdict": "leak"}).status_code == 404


def test_neighbours_of_a_refused_page_are_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was refused is shown at the address of the act, which takes no GET."""
    monkeypatch.setattr(pages, "PAGE", 1)
    for text in (f"as in {secret()}", f"as in {secret('aws-access-key-id')}"):
        held(world, text)
    administrator = signed_in(world.administrator)
    address = f"{PAGE}{overrides.overrides()[0].record_id}/review/"
    page = administrator.post(address, {"verdict": "leak", "notes": ""}).content.decode()
    (older,) = re.findall(r'href="([^"]+)" rel="next"', page)
    assert older == f"{PAGE}?page=2"
    assert administrator.get(older).status_code == 200


def test_what_was_reviewed_last_comes_first(world: World) -> None:
    for text in (f"as in {secret()}", f"as in {secret('aws-access-key-id')}"):
        held(world, text)
    let_through = list(overrides.overrides())
    for override in let_through:
        overrides.review(
            override,
            verdict=SafetyVerdict.FALSE_HIT,
            notes="",
            by=world.administrator,
            clock=world.clock,
        )
    assert list(overrides.reviewed_lately()) == let_through[::-1]


def test_every_kind_is_refused_or_observed() -> None:
    """The machine's kinds are those that nobody's words are refused in; a new kind is refused unless it says so."""
    observed = {name for name, kind in KINDS.items() if kind.observed}
    assert CONNECTOR_DELIVERY.name in observed
    assert (
        not {
            NOTIFICATION_ACK.name,
            AUDIT_PACKAGE.name,
            DELIVERY_PLAN.name,
            APPROVAL_PLAN.name,
            PUBLIC_SAFETY_OVERRIDE.name,
        }
        & observed
    )
