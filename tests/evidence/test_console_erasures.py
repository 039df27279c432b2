"""The pages about erasing: proposed on a record's page, decided by somebody else, held, kept for a time."""

import pytest
from django.test import Client

from evidence.documents import CONNECTOR_DELIVERY
from evidence.domain import capsules, checkpoints, configuration, erasures, holds
from evidence.enums import ErasureState
from evidence.models import Case, Erasure, LegalHold, Person, Record, RetentionRule
from tests.builders import World
from tests.evidence.ledger_keys import Keys

TERMS = {"legal_basis": "GDPR art. 17(1)(a)", "reason": "The person asked for it."}
PAGE = "/console/erasures/"


def signed_in(who: Person) -> Client:
    client = Client()
    client.force_login(who)
    return client


@pytest.fixture
def case(world: World) -> Case:
    return world.delivered()[0]


@pytest.fixture
def record(case: Case) -> Record:
    return Record.objects.get(record_id=case.attempts.get().record_id)


@pytest.fixture
def proposal(world: World, record: Record) -> Erasure:
    return erasures.propose(
        [record.record_id], TERMS["legal_basis"], TERMS["reason"], by=world.administrator, clock=world.clock
    )


def shown(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200
    return answer.content.decode()


def test_proposed_on_its_page_and_erased_by_another(world: World, case: Case, record: Record) -> None:
    administrator, auditor = signed_in(world.administrator), signed_in(world.auditor)
    address = f"/console/records/{record.record_id}/"
    assert "Propose its erasure" in shown(administrator, address)
    assert "Propose its erasure" not in shown(signed_in(world.analyst), address)
    assert administrator.post(f"{address}erase/", TERMS).status_code == 302
    erasure = Erasure.objects.get()
    assert "you proposed this" in shown(administrator, PAGE) or "role that may" in shown(administrator, PAGE)
    assert f"Erase as {world.auditor.username}" in shown(auditor, PAGE)
    done = auditor.post(f"{PAGE}{erasure.erasure_id}/decide/", {"state": "confirmed"}, follow=True)
    assert "Erased: the bytes are gone" in done.content.decode()
    record.refresh_from_db()
    assert record.body is None
    said = f"Body erased {erasures.erased([record])[record.index].at.day} "
    for page in (address, f"/console/cases/{case.case_id}/"):
        assert said in shown(auditor, page)
        assert "by two people" in shown(auditor, page)
    # Chips stay, and lists say so.
    assert record.record_id in shown(auditor, f"/console/cases/{case.case_id}/")
    assert "Erased" in shown(auditor, f"/console/?case={case.case_id}&include=all")
    assert TERMS["legal_basis"] in shown(auditor, PAGE)


def test_who_confirms_sees_what_goes(world: World, case: Case, record: Record, keys: Keys) -> None:
    keys.add()
    capsules.freeze(case, by=world.auditor, clock=world.clock)
    other = case.package.audit_id
    ids = [record.record_id, other]
    erasures.propose(ids, "law", "asked", by=world.administrator, clock=world.clock)
    hold = holds.place(other, reason="court", by=world.auditor, clock=world.clock)
    auditor = signed_in(world.auditor)
    page = shown(auditor, PAGE)
    for words in ("Connector delivery", "Audit package", "attempt answer: excerpt", "the bytes of 1 capsule"):
        assert words in page, words
    link = f'href="/console/records/{hold.hold_id}/"'
    assert page.count(link) == 2  # in the reason why it stays, and where the hold stands
    case_hold = holds.place(case.case_id, reason="court", by=world.auditor, clock=world.clock)
    assert f'href="/console/cases/{case_hold.scope}/"' in shown(auditor, PAGE)


def test_an_erased_record_says_so_where_its_person_stood(world: World, case: Case, proposal: Erasure) -> None:
    erasures.confirm(proposal, by=world.auditor, clock=world.clock)
    gone = proposal.items.get().record_id
    page = shown(signed_in(world.auditor), f"/console/records/{gone}/")
    assert '<dt>By</dt><dd class="quiet">erased</dd>' in page
    assert f'href="/api/v1/records/{gone}/seal"' in page
    assert "No signed head reaches it yet" in page
    assert f"/api/v1/records/{gone}/bytes" not in page
    assert "<span></span>" not in shown(signed_in(world.auditor), f"/console/cases/{case.case_id}/")


def test_a_record_leads_to_its_seal_and_its_proof(world: World, record: Record, keys: Keys) -> None:
    keys.add()
    checkpoints.to_hand_out(clock=world.clock)
    client = signed_in(world.auditor)
    page = shown(client, f"/console/records/{record.record_id}/")
    for part in ("seal", "proof", "bytes"):
        address = f"/api/v1/records/{record.record_id}/{part}"
        assert f'href="{address}"' in page
        assert client.get(address).status_code == 200


def test_a_refusal_has_the_sentence_of_the_verb(world: World, record: Record, proposal: Erasure) -> None:
    address = f"{PAGE}{proposal.erasure_id}/decide/"
    refused = signed_in(world.administrator).post(address, {"state": "confirmed"})
    assert refused.status_code == 403
    refused = signed_in(world.auditor).post(address, {"state": "refused"})
    assert (refused.status_code, "say why" in refused.content.decode()) == (400, True)
    refused = signed_in(world.auditor).post(address, {"state": "vanished"})
    assert refused.status_code == 400
    holds.place("*", reason="court", by=world.auditor, clock=world.clock)
    refused = signed_in(world.auditor).post(address, {"state": "confirmed"})
    assert (refused.status_code, "legal hold" in refused.content.decode()) == (409, True)
    assert "aria-disabled" in shown(signed_in(world.auditor), PAGE)
    assert signed_in(world.auditor).post(f"{PAGE}erasure-0/decide/", {}).status_code == 404
    again = signed_in(world.administrator).post(f"/console/records/{record.record_id}/erase/", TERMS)
    assert again.status_code == 409
    assert record.record_id in again.content.decode()


def test_what_has_to_stay_says_why_beside_the_button(world: World) -> None:
    (case,) = world.failed()
    page = shown(signed_in(world.administrator), f"/console/records/{case.package.audit_id}/")
    assert f"belongs to {case.case_id}, which is not settled yet." in page
    assert 'aria-disabled="true" aria-describedby="why-erase"' in page


def test_a_proposal_is_taken_back(world: World, proposal: Erasure) -> None:
    signed_in(world.administrator).post(f"{PAGE}{proposal.erasure_id}/decide/", {"state": "withdrawn"})
    proposal.refresh_from_db()
    assert proposal.state == ErasureState.WITHDRAWN


def test_holds_are_placed_and_lifted(world: World, case: Case) -> None:
    client = signed_in(world.auditor)
    assert client.post(f"{PAGE}hold/", {"scope": "nothing-here", "reason": "court"}).status_code == 404
    assert client.post(f"{PAGE}hold/", {"scope": case.case_id, "reason": ""}).status_code == 400
    assert client.post(f"{PAGE}hold/", {"scope": case.case_id, "reason": "court"}).status_code == 302
    hold = LegalHold.objects.get()
    assert case.case_id in shown(client, PAGE)
    assert (
        signed_in(world.analyst).post(f"{PAGE}holds/{hold.hold_id}/lift/", {"reason": "x"}).status_code == 403
    )
    assert client.post(f"{PAGE}holds/{hold.hold_id}/lift/", {"reason": "over"}).status_code == 302
    hold.refresh_from_db()
    assert hold.lifted_by == world.auditor


def test_a_rule_is_confirmed_by_another(world: World) -> None:
    rule = RetentionRule(kind=CONNECTOR_DELIVERY.name, keep_days=90, legal_basis="Records act")
    configuration.save(rule, by=world.administrator, clock=world.clock)
    address = f"{PAGE}rules/{rule.kind}/confirm/"
    assert signed_in(world.administrator).post(address).status_code == 403
    assert address in shown(signed_in(world.auditor), PAGE)
    assert signed_in(world.auditor).post(address).status_code == 302
    assert "In force" in shown(signed_in(world.auditor), PAGE)


def test_a_body_that_nobody_erased_is_no_erased_one(world: World, record: Record) -> None:
    record.body = None
    from evidence.domain import lines

    assert lines.line(record).erased == "Body missing: no erasure says why"
