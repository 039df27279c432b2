"""Who is calling: a token, a session, or nobody (P21, P14)."""

import base64
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from knox.models import get_token_model
from rest_framework.test import APIClient

from evidence.domain import people
from evidence.domain.clock import system_clock
from evidence.enums import Role
from evidence.models import Person
from tests.builders import person
from tests.endpoints import client, served

PATH = "/console/config"

# Answers anybody: probes, and the pages by which one signs in or out.
PUBLIC = {"/healthz", "/readyz", "/accounts/login/"}


def token_of(who: Person) -> str:
    return people.issue_token(who, by=None, clock=system_clock)


def get(header: str, path: str = PATH) -> Any:
    return APIClient(raise_request_exception=False).get(path, HTTP_AUTHORIZATION=header)


def assert_401(answer: Any) -> None:
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"
    assert answer["Content-Type"] == "application/json"
    assert set(answer.json()) == {"detail", "code"}


@pytest.fixture
def auditor(db: None) -> Person:
    return person(Role.AUDITOR)


def test_a_token_identifies_its_person(auditor: Person) -> None:
    assert client(auditor).get(PATH).status_code == 200


@pytest.mark.parametrize("scheme", ("bearer", "BEARER", "Bearer"))
def test_the_scheme_is_read_in_any_case(auditor: Person, scheme: str) -> None:
    assert get(f"{scheme} {token_of(auditor)}").status_code == 200


def test_nobody_is_told_to_bring_a_token(db: None) -> None:
    answer = APIClient().get(PATH)
    assert_401(answer)
    assert answer.json()["code"] == "not_authenticated"


@pytest.mark.parametrize(
    "header",
    (
        "Bearer",
        "Bearer ",
        "Bearer \xff",
        "Bearer \u20ac",
        "Bearer \x00",
        "Bearer a b",
        "Bearer " + "a" * 10_000,
        "Bearer " + "0" * 64,
        "Token " + "0" * 64,
        "Basic " + base64.b64encode(b"user:password").decode(),
        "Digest x",
        "x",
        "\xff",
        "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",
    ),
)
def test_whatever_is_wrong_with_the_header_is_a_401(db: None, header: str) -> None:
    assert_401(get(header))


def test_a_token_differing_in_its_last_digit_is_unknown(auditor: Person) -> None:
    token = token_of(auditor)
    other = token[:-1] + ("0" if token[-1] != "0" else "1")
    assert get(f"Bearer {other}").json()["code"] == "token_invalid"


def test_a_wrong_header_is_not_made_good_by_a_session(auditor: Person) -> None:
    browser = Client(raise_request_exception=False)
    browser.force_login(auditor)
    assert browser.get(PATH).status_code == 200
    assert browser.get(PATH, headers={"authorization": "Bearer nonsense"}).status_code == 401


def test_an_expired_token_is_refused_and_left_where_it_is(auditor: Person) -> None:
    token = token_of(auditor)
    rows = get_token_model().objects
    rows.update(expiry=timezone.now() - timedelta(seconds=1))
    answer = get(f"Bearer {token}")
    assert_401(answer)
    assert answer.json()["code"] == "token_expired"
    assert rows.count() == 1


def test_a_deactivated_person_is_refused(auditor: Person) -> None:
    token = token_of(auditor)
    # The row alone: deactivating through its verb would remove the token too.
    Person.objects.filter(pk=auditor.pk).update(is_active=False, deactivated_at=timezone.now())
    answer = get(f"Bearer {token}")
    assert_401(answer)
    assert answer.json()["code"] == "account_inactive"


def test_deactivation_by_its_verb_ends_the_tokens(auditor: Person) -> None:
    token = token_of(auditor)
    people.set_active(auditor, False, by=None, clock=system_clock)
    assert_401(get(f"Bearer {token}"))


def test_a_service_account_ends_with_its_owner(auditor: Person) -> None:
    account = person(Role.AUDITOR, owner=auditor)
    token = token_of(account)
    assert get(f"Bearer {token}").status_code == 200
    people.set_active(auditor, False, by=None, clock=system_clock)
    answer = get(f"Bearer {token}")
    assert_401(answer)
    assert answer.json()["code"] == "account_inactive"


def test_authenticating_writes_nothing(auditor: Person) -> None:
    token = token_of(auditor)
    get_token_model().objects.create(user=auditor, expiry=timedelta(days=-1))
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert get(f"Bearer {token}").status_code == 200
    assert [q["sql"] for q in queries if not q["sql"].startswith("SELECT")] == []


def test_a_session_needs_the_csrf_token_to_act(auditor: Person) -> None:
    analyst = person(Role.ANALYST)
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(analyst)
    answer = browser.post(
        "/runtime/go-pilot/rollback-drill-notifications/acknowledgements/audit-package",
        {},
        content_type="application/json",
    )
    assert answer.status_code == 403
    assert "CSRF" in answer.json()["detail"]


def api_paths() -> list[str]:
    """Addresses below the API's roots, parameters filled in."""
    found = [
        one.path
        for one in served()
        if one.path.startswith(("/runtime", "/api", "/evidence", "/console/config")) and "(?" not in one.path
    ]
    assert len(found) > 25
    return found


@pytest.mark.parametrize("path", api_paths())
@pytest.mark.parametrize("method", ("GET", "POST", "PUT", "DELETE", "OPTIONS"))
def test_every_address_of_the_api_refuses_strangers(db: None, path: str, method: str) -> None:
    answer = APIClient().generic(
        method, path.replace("{", "").replace("}", ""), b"{}", content_type="application/json"
    )
    if path == "/api/docs":
        assert answer.status_code == 302
        assert answer["Location"].startswith("/accounts/login/")
    else:
        assert_401(answer)


def test_only_probes_and_signing_in_are_public() -> None:
    views = {one.path: one.view for one in served()}
    assert set(views) >= PUBLIC
    for path, view in views.items():
        if getattr(view, "authentication_classes", None) == ():
            assert path in PUBLIC, path


@pytest.mark.parametrize("path", ("/runtime", "/runtime/x", "/api/v2", "/evidence/", "/api/schema/"))
def test_unknown_addresses_are_json_for_everybody(auditor: Person, path: str) -> None:
    assert_401(APIClient().get(path))
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        answer = client(auditor).generic(method, path)
        assert answer.status_code == 404
        assert answer.json()["code"] == "not_found"
    if path.endswith("/"):
        assert "trailing slash" in client(auditor).get(path).json()["detail"]
