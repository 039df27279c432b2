"""The ledger's page: signed heads, who signed them, who holds them, and in red why none is signed."""

import pytest
from django.contrib.messages import get_messages
from django.test import Client

from evidence import guards
from evidence.domain import anchors, checkpoints, heads, log_keys, notes, verifications
from evidence.domain.anchors import Kept
from evidence.domain.clock import system_clock
from evidence.enums import Administration, AnchorMeans, Role
from evidence.models import Checkpoint, LedgerHead, Record
from tests.builders import World, person
from tests.evidence.ledger_keys import Keys
from tests.evidence.rows import append, draft
from tests.evidence.test_console import signed_in
from tests.heads import lay_outside

pytestmark = pytest.mark.django_db
LEDGER = "/console/ledger/"


@pytest.fixture
def auditor() -> Client:
    return signed_in(person(Role.AUDITOR))


def signed(number: int = 1) -> Checkpoint:
    append(*(draft() for _ in range(number)))
    return checkpoints.to_hand_out(clock=system_clock)


def hold(head: Checkpoint, place: str, administered_by: Administration) -> None:
    kept = Kept(AnchorMeans.FILE, place, b"")
    anchors.hold(head, kept, administered_by=administered_by, by=None, clock=system_clock)


def content(client: Client) -> str:
    return client.get(LEDGER).content.decode()


def test_before_the_first_head_the_page_says_how_to_get_one(auditor: Client) -> None:
    page = content(auditor)
    assert "No head was signed yet" in page
    assert "manage.py ledger_key" in page
    assert "leaves no trace" in page


def test_heads_stand_with_their_key_and_who_holds_them(keys: Keys, auditor: Client) -> None:
    row = keys.add()
    made = [signed(number) for number in (1, 4, 2)]
    hold(made[0], "/mnt/audit/heads", Administration.THIRD_PARTY)
    hold(made[1], "/srv/heads", Administration.US)
    page = content(auditor)
    assert f"{made[0].origin}+{row.key_id}" in page
    assert f"over {made[2].size} entries" in page
    assert "/mnt/audit/heads" in page
    assert (
        page.index("Oldest: ")
        < page.index("/mnt/audit/heads")
        < page.index("Newest: ")
        < page.index("/srv/heads")
    )
    assert "administered by a third party" in page
    for each in made:
        assert f"/console/ledger/heads/{each.pk}/" in page
    assert "nobody yet" in page


def test_a_head_and_the_keys_are_taken_away_as_files(keys: Keys, auditor: Client) -> None:
    keys.add("old")
    made = signed()
    answer = auditor.get(f"/console/ledger/heads/{made.pk}/")
    assert answer.content.decode() == made.note
    assert f'filename="checkpoint-{made.size}"' in answer["Content-Disposition"]
    assert heads.hold_against(answer.content.decode()).holds
    keys.add("stolen")
    stolen = log_keys.verifiers()[-1].key_id.hex()
    log_keys.revoke(stolen, reason="stolen", by=None, clock=system_clock)
    text = auditor.get("/console/ledger/keys/").content.decode()
    (key,) = (notes.Verifier.from_vkey(line) for line in text.splitlines())
    assert notes.opened(made.note, [key]).signed_by == (key,)
    assert auditor.get("/console/ledger/heads/999999/").status_code == 404


def test_a_pass_says_what_it_shows_and_what_closes_the_rest(keys: Keys, world: World) -> None:
    auditor = signed_in(world.auditor)
    keys.add()
    verifications.run_due(clock=system_clock)
    page = content(auditor)
    assert "are what the records say" in page
    assert "Signed heads are of this tree" not in page
    assert "manage.py anchor" in page
    world.announced()
    head = checkpoints.to_hand_out(clock=system_clock)
    hold(head, "/mnt/audit/heads", Administration.THIRD_PARTY)
    verifications.ask(by=None, clock=system_clock)
    assert verifications.run_due(clock=system_clock) == 1
    verified = LedgerHead.objects.get().size
    world.announced()
    page = content(auditor)
    assert "Signed heads are of this tree" in page
    assert f"the oldest at {head.size} entries" in page
    assert "verify_ledger --against FILE" in page
    assert f"After {head.size} entries none is held yet" in page
    # What was not looked at yet is not called verified.
    assert f"{LedgerHead.objects.get().size} entries sealed" in page
    assert f"<small>{verified} verified <time" in page


def test_an_auditor_signs_from_the_page(keys: Keys, auditor: Client) -> None:
    keys.add()
    assert "Sign now" in content(auditor)
    answer = auditor.post("/console/ledger/sign/")
    assert (answer.status_code, answer["Location"]) == (302, "/console/ledger/#heads")
    assert Checkpoint.objects.count() == 1
    again = auditor.post("/console/ledger/sign/")
    assert [str(message) for message in get_messages(again.wsgi_request)][-1] == "Nothing was new to sign."


def test_an_analyst_reads_and_does_not_sign(keys: Keys) -> None:
    keys.add()
    client = signed_in(person(Role.ANALYST))
    assert "Sign now" not in content(client)
    client.post("/console/ledger/sign/")
    assert not Checkpoint.objects.exists()
    viewer = signed_in(person(Role.VIEWER))
    for address in (LEDGER, "/console/ledger/keys/", "/console/ledger/heads/1/"):
        assert viewer.get(address).status_code == 403


def test_a_refused_head_is_a_red_box_with_its_reason(keys: Keys, auditor: Client) -> None:
    keys.add()
    signed()
    append(draft())
    index = Record.objects.count() - 1
    guards.drop()
    Record.objects.filter(index=index).update(body=b"{}")
    answer = auditor.post("/console/ledger/sign/")
    assert "No head was signed. Entry" in str(list(get_messages(answer.wsgi_request)))
    page = content(auditor)
    assert 'id="unsigned"' in page
    assert f"Entry {index}: the body is not the one that was sealed." in page


def test_a_database_that_was_set_back_is_a_red_box(keys: Keys, auditor: Client) -> None:
    assert 'id="unsigned"' not in content(auditor)
    lay_outside(ahead=7)
    page = content(auditor)
    assert 'id="unsigned"' in page
    assert "not the one that was worked with last" in page
