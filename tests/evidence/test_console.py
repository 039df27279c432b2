"""The browser console: who may see what, and that pages are plain HTML without code of their own."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from evidence.documents import KINDS
from evidence.domain.lines import FLAGS, kind_label
from evidence.enums import Role
from evidence.models import Case, Person, Record
from evidence.templatetags.console import STATES, short
from tests.builders import World, person
from tests.receiver import Receiver

READERS = (Role.ANALYST, Role.APPROVER, Role.OPERATOR, Role.AUDITOR, Role.ADMINISTRATOR)


def signed_in(who: Person) -> Client:
    client = Client()
    client.force_login(who)
    return client


@pytest.fixture
def failed(world: World) -> Case:
    (case,) = world.failed()
    return case


def pages(case: Case) -> dict[str, str]:
    """Every page of the console, by name."""
    record = Record.objects.get(record_id=case.plan.delivery_id)
    return {
        "overview": "/console/",
        "cases": "/console/cases/",
        "case": f"/console/cases/{case.case_id}/",
        "record": f"/console/records/{record.record_id}/",
    }


class Plain(HTMLParser):
    """Collects whatever the Content-Security-Policy would refuse, and every address a page loads from."""

    def __init__(self) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        code = tag == "style" or (tag == "script" and not given.get("src"))
        if code or "style" in given or any(name.startswith("on") for name in given):
            self.inline.append(self.get_starttag_text() or tag)
        for name in ("src", "action"):
            if given.get(name):
                self.loaded.append(str(given[name]))
        if tag in ("link", "use"):
            self.loaded.append(str(given.get("href")))


# --- who ---------------------------------------------------------------------------------------------------------


def test_nobody_is_asked_to_sign_in_and_comes_back(failed: Case) -> None:
    for address in pages(failed).values():
        answer = Client().get(address)
        assert answer.status_code == 302
        assert answer["Location"] == f"/accounts/login/?next={address}"


def test_a_viewer_sees_numbers_and_no_record(failed: Case) -> None:
    client = signed_in(person(Role.VIEWER))
    overview = client.get("/console/")
    assert overview.status_code == 200
    assert b"<b>1</b>failed" in overview.content
    for shown in (failed.case_id, short(failed.case_id), failed.plan.delivery_id, "Notification history"):
        assert shown.encode() not in overview.content
    for name, address in pages(failed).items():
        if name != "overview":
            refusal = client.get(address)
            assert refusal.status_code == 403, name
            assert b"This needs a role that may read evidence." in refusal.content


def test_without_a_role_every_page_is_refused(failed: Case) -> None:
    client = signed_in(person())
    answers = [client.get(address) for address in pages(failed).values()]
    assert {answer.status_code for answer in answers} == {403}
    assert all(b'action="/accounts/logout/"' in answer.content for answer in answers)


@pytest.mark.parametrize("role", READERS)
def test_readers_see_every_page(failed: Case, role: Role) -> None:
    client = signed_in(person(role))
    assert {client.get(address).status_code for address in pages(failed).values()} == {200}


def test_pages_are_only_read(failed: Case) -> None:
    client = signed_in(person(Role.ANALYST))
    assert {client.post(address).status_code for address in pages(failed).values()} == {405}


def test_signing_in_and_out(db: None) -> None:
    who = person(Role.ANALYST)
    client = Client(enforce_csrf_checks=True)
    door = client.get("/accounts/login/?next=/console/cases/")
    token = re.search(rb'name="csrfmiddlewaretoken" value="([^"]+)"', door.content)
    assert token is not None
    sent = {"csrfmiddlewaretoken": token[1].decode(), "username": who.username, "next": "/console/cases/"}
    wrong = client.post("/accounts/login/", {**sent, "password": "wrong"})
    assert wrong.status_code == 200
    assert b"Name and password do not fit." in wrong.content
    right = client.post("/accounts/login/", {**sent, "password": "correct horse battery"})
    assert (right.status_code, right["Location"]) == (302, "/console/cases/")
    assert client.get("/accounts/logout/").status_code == 405
    inside = client.get("/console/cases/")
    token = re.search(rb'name="csrfmiddlewaretoken" value="([^"]+)"', inside.content)
    assert token is not None
    assert client.post("/accounts/logout/", {"csrfmiddlewaretoken": token[1].decode()}).status_code == 302
    assert client.get("/console/cases/").status_code == 302


def test_nobody_is_led_away_by_signing_in(db: None) -> None:
    who = person(Role.ANALYST)
    answer = Client().post(
        "/accounts/login/",
        {"username": who.username, "password": "correct horse battery", "next": "https://elsewhere.invalid/"},
    )
    assert answer["Location"] == "/console/"


# --- what --------------------------------------------------------------------------------------------------------


def test_pages_have_no_code_of_their_own_and_load_nothing_from_elsewhere(failed: Case) -> None:
    client = signed_in(person(Role.ANALYST))
    answers = [client.get(address) for address in pages(failed).values()]
    answers += [
        Client().get("/accounts/login/"),
        client.get("/console/nothing/"),
        client.get("/console/?cursor=x"),
    ]
    for answer in answers:
        page = Plain()
        page.feed(answer.content.decode())
        assert page.inline == []
        assert page.loaded
        assert all(
            re.match(rf"(/?{settings.STATIC_URL.lstrip('/')}|/accounts/|/console/|#i-)", link)
            for link in page.loaded
        ), page.loaded
        policy = answer["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy


def test_history_shows_the_newest_record_first_and_finds_by_filter(world: World) -> None:
    (case,) = world.failed()
    client = signed_in(world.auditor)

    def shown(query: str = "") -> list[str]:
        content = client.get(f"/console/{query}").content.decode()
        return re.findall(r'<a class="chip" href="/console/records/[^"]+" title="([^"]+)">', content)

    def stored(**columns: Any) -> list[str]:
        newest = Record.objects.filter(**columns).order_by("-created_at", "-index")
        return list(newest.values_list("record_id", flat=True))

    chain = [name for name, kind in KINDS.items() if kind.contract]
    assert shown() == stored(kind__in=chain)
    assert len(shown()) > 3
    assert shown("?kind=person") == stored(kind="person")
    assert shown(f"?case={case.case_id}") == [
        case.attempts.get().record_id,
        case.plan.delivery_id,
    ]
    assert shown("?provider=webhook") == shown()
    assert shown(f"?q={case.plan.delivery_id}")[-1] == case.plan.delivery_id
    assert shown("?case=nothing") == []


def test_history_is_paged_without_gap_or_repetition(world: World) -> None:
    for _ in range(7):
        world.announced()
        world.acknowledged()
    client = signed_in(world.auditor)
    seen: list[str] = []
    address = "?provider=webhook"
    while address:
        content = client.get(f"/console/{address}").content.decode()
        seen += re.findall(r'<a class="chip" href="/console/records/[^"]+" title="([^"]+)">', content)
        older = re.search(r'href="(\?[^"]+)" rel="next"', content)
        address = older[1].replace("&amp;", "&") if older else ""
    assert len(seen) == len(set(seen)) == 21


@pytest.mark.parametrize(
    "query",
    (
        "?kind=nonsense",
        "?provider=nonsense",
        "?cursor=nonsense",
        "?q=%00",
        f"?q={'x' * 201}",
        f"?case={'x' * 91}",
    ),
)
def test_a_filter_that_cannot_be_one_is_said_to_be_so(world: World, query: str) -> None:
    answer = signed_in(world.auditor).get(f"/console/{query}")
    assert answer.status_code == 400
    assert b'role="alert"' in answer.content


@pytest.mark.parametrize("query", ("?state=nonsense", "?provider=nonsense"))
def test_a_case_filter_that_cannot_be_one_is_said_to_be_so(world: World, query: str) -> None:
    answer = signed_in(world.auditor).get(f"/console/cases/{query}")
    assert answer.status_code == 400
    assert b'role="alert"' in answer.content


@pytest.mark.parametrize("page", ("0", "-1", "99", "x", "9" * 30, "²"))
def test_a_page_of_cases_that_is_not_there_is_the_nearest_one(failed: Case, page: str) -> None:
    answer = signed_in(person(Role.AUDITOR)).get("/console/cases/", {"page": page})
    assert answer.status_code == 200
    assert failed.case_id.encode() in answer.content


def test_case_shows_attempts_and_its_whole_chain(world: World) -> None:
    (case,) = world.failed()
    world.approved()
    started = world.ran()
    content = signed_in(world.auditor).get(f"/console/cases/{case.case_id}/").content.decode()
    (done,) = started.outcome.recorded
    assert done.execution.execution_id in content
    chain = content[content.index('<ol class="chain">') :]
    places = [int(n) for n in re.findall(r'<li class="is-\w+" value="(\d+)"', chain)]
    assert places == list(range(1, len(places) + 1))
    assert len(places) >= 9
    rows = re.findall(
        r'class="first">(\d)</th><td role="cell" class="state"><span class="pill is-(\w+)', content
    )
    assert rows == [("1", "bad"), ("2", "ok")]


def test_a_delivered_case_is_not_told_by_what_failed_beside_it(db: None, receiver: Receiver) -> None:
    world = World(receiver, providers=("webhook", "other"))
    world.failed()
    receiver.behave("/webhook", status=503)
    world.acknowledged()
    cases = {case.connector.key: case for case in world.delivered()}
    assert {key: case.state for key, case in cases.items()} == {"webhook": "failed", "other": "delivered"}
    lines = signed_in(world.analyst).get(f"/console/cases/{cases['other'].case_id}/").context["chain"]
    assert [line.state for _, line in lines][2:] == ["delivered"]


def test_record_shows_the_stored_bytes(failed: Case) -> None:
    record = Record.objects.get(record_id=failed.plan.delivery_id)
    content = signed_in(person(Role.AUDITOR)).get(f"/console/records/{record.record_id}/").content.decode()
    assert record.digest in content
    assert bytes(record.body or b"").decode().replace('"', "&quot;") in content


def test_what_is_not_there_is_a_page_of_ours(db: None) -> None:
    client = signed_in(person(Role.AUDITOR))
    for address in ("/console/cases/nothing/", "/console/records/nothing/", "/console/nothing/"):
        answer = client.get(address)
        assert answer.status_code == 404
        assert b"CAVRA" in answer.content


def test_a_case_costs_the_same_with_a_longer_chain(world: World) -> None:
    (case,) = world.failed()
    client = signed_in(world.auditor)
    address = f"/console/cases/{case.case_id}/"

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get(address).status_code == 200
        return len(captured)

    before = queries()
    for _ in range(3):
        world.planned()
    assert queries() == before


def test_every_kind_has_words_of_its_own() -> None:
    labels = [kind_label(name) for name in KINDS]
    assert len(set(labels)) == len(labels)
    assert not any(label.startswith(("Go backend", "Acknowledgement")) for label in labels)


def test_every_flag_that_is_a_state_has_words() -> None:
    flags = {
        kind.state_fields[-1]
        for kind in KINDS.values()
        if kind.state_fields and kind.fields[kind.state_fields[-1]] is bool
    }
    assert {(flag, value) for flag in flags for value in (True, False)} <= FLAGS.keys()
    assert "done" in flags


def test_every_icon_is_in_the_sprite() -> None:
    sprite = (settings.BASE_DIR / "templates" / "components" / "_icons.html").read_text()
    there = set(re.findall(r'<symbol id="i-(\w+)"', sprite))
    templates = "".join(path.read_text() for path in (settings.BASE_DIR / "templates").rglob("*.html"))
    used = (
        {icon for _, icon, _ in STATES.values()} | set(re.findall(r'{% icon "(\w+)" %}', templates)) | {"dot"}
    )
    assert used <= there


def test_an_empty_history_names_the_filter_to_drop(failed: Case) -> None:
    client = signed_in(person(Role.AUDITOR))
    page = client.get("/console/?state=denied&provider=webhook&since=2020-01-01").content.decode()
    assert "No record fits these filters" in page
    counts = dict(re.findall(r'Without “(\w+): [^”]*” there are <a href="[^"]*">([\d,]+)</a>', page))
    assert counts.keys() == {"Connector", "State", "Since"}
    assert int(counts["State"]) > 0
    assert counts["Since"] == "0"


def test_an_expired_session_sends_the_whole_window_to_sign_in(failed: Case) -> None:
    """Not a sign-in page inside a panel: htmx follows HX-Redirect, and comes back to where it was."""
    here = f"http://testserver/console/cases/{failed.case_id}/"
    answer = Client().get(
        f"/console/cases/{failed.case_id}/stamp/?since=1",
        headers={"hx-request": "true", "hx-current-url": here},
    )
    assert answer.status_code == 204
    assert answer["HX-Redirect"] == f"/accounts/login/?next=/console/cases/{failed.case_id}/"
