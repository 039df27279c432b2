"""Every address refuses the outsider (P22): nobody in particular, and somebody without any role."""

import re
from collections.abc import Iterator

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from evidence.domain import people
from evidence.domain.clock import system_clock
from tests.builders import person

# What anybody may ask: whether the service is up, and where to sign in. They tell nothing of the evidence.
OPEN = {"/healthz", "/readyz", "/accounts/login/", "/admin/login/", "/admin/logout/", "/admin/jsi18n/"}
# What anybody who is signed in may do, whatever their roles.
SIGNED_IN = {
    "/accounts/logout/",
    "/admin/logout/",
    "/admin/password_change/",
    "/admin/password_change/done/",
    "/api/schema",
    "/api/docs",
    "/console/config",
    "/console/theme/",
    # Nothing is served there.
    "/runtime/nothing",
}


def addresses() -> Iterator[str]:
    """An address for every pattern, each placeholder filled with something that could be an id."""
    yield from sorted(set(_walk(get_resolver().url_patterns, "/")))


def _walk(patterns: list[URLPattern | URLResolver], prefix: str) -> Iterator[str]:
    for pattern in patterns:
        route = prefix + _filled(str(pattern.pattern))
        if isinstance(pattern, URLResolver):
            yield from _walk(pattern.url_patterns, route)
        else:
            yield route


def _filled(route: str) -> str:
    """A path that a route matches."""
    route = re.sub(r"<(?:\w+:)?(\w+)>", "1", route)
    route = re.sub(r"\(\?P<\w+>[^)]*\)", "1", route)
    route = re.sub(r"\(\?:([a-z]+)[^)]*\)\(\?:/\|\$\)", r"\1/nothing", route)
    return route.replace("^", "").replace("$", "").replace("\\", "").replace("(?:/|)", "")


ADDRESSES = [address for address in addresses() if address not in OPEN]


def test_the_walk_finds_the_product() -> None:
    found = list(addresses())
    assert len(found) > 60
    assert "/runtime/go-pilot/rollback-drill-notifications/acknowledgements/audit-delivery" in found
    assert set(found) >= {"/healthz", "/readyz"}


@pytest.mark.django_db
@pytest.mark.parametrize("method", ("get", "post"))
def test_nobody_gets_nothing(method: str) -> None:
    client = Client(raise_request_exception=True)
    let_in = []
    for address in ADDRESSES:
        answer = getattr(client, method)(address, content_type="application/json")
        to_sign_in = answer.status_code == 302 and "login" in answer["location"]
        if not (answer.status_code in (401, 405) or to_sign_in):
            let_in.append((address, answer.status_code))
    assert let_in == []


@pytest.mark.django_db
@pytest.mark.parametrize("method", ("get", "post"))
def test_somebody_without_a_role_gets_nothing(method: str) -> None:
    outsider = person()
    client = Client(
        headers={"authorization": f"Bearer {people.issue_token(outsider, by=None, clock=system_clock)}"}
    )
    client.force_login(outsider)
    let_in = []
    for address in ADDRESSES:
        if address in SIGNED_IN:
            continue
        answer = getattr(client, method)(address, content_type="application/json")
        to_sign_in = answer.status_code == 302 and "login" in answer["location"]
        if not (answer.status_code in (403, 405) or to_sign_in):
            let_in.append((address, answer.status_code))
    assert let_in == []


@pytest.mark.django_db
def test_api_answers_401_to_nobody() -> None:
    client = Client()
    wrong = [
        (address, client.get(address).status_code)
        for address in ADDRESSES
        if address.startswith(("/runtime", "/evidence", "/api/v1"))
        and client.get(address).status_code not in (401, 405)
    ]
    assert wrong == []
