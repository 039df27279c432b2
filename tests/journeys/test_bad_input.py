"""Whatever is thrown at a POST: never a 5xx, and a refusal writes nothing (issue: "Bad input")."""

import json
from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise, product
from typing import Any

import pytest
from rest_framework import serializers

from evidence.api.bodies import Body
from tests.builders import World
from tests.endpoints import Served, acts, client, prepared, written
from tests.evidence.ledger_keys import Keys

HUGE = "x" * 5_000
DEEP: Any = []
for _ in range(100):
    DEEP = [DEEP]

# Values of every JSON type, at and beyond their limits. Strings stand for what a column or a rule could choke on.
VALUES: tuple[Any, ...] = (
    None,
    True,
    2**53,
    10**40,
    0.1234,
    "",
    "x",
    HUGE,
    "nul\0inside",
    "right\u202eto left",
    "9999-12-31T23:59:59-14:00",
    [None],
    ["x"] * 5_000,
    {"x": 1},
    DEEP,
)

# Bodies that are no object, or no I-JSON, whatever the endpoint.
RAW: tuple[bytes, ...] = (
    b"",
    b" ",
    b"null",
    b"true",
    b"0",
    b'"text"',
    b"[]",
    b"[{}]",
    b"{",
    b"}{",
    b"{}{}",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b'{"a": NaN}',
    b'{"a": Infinity}',
    b'{"a": -Infinity}',
    b'{"a": 1e999999999}',
    b'{"a": 9007199254740992}',
    b'{"a": ' + b"9" * 5_000 + b"}",
    b'{"a": 0.0001}',
    b'{"a": "\\ud800"}',
    b'{"\\udfff": 1}',
    b'{"a": "\\uffff"}',
    b'{"a": "\xed\xa0\x80"}',
    b'{"a": 1, "a": 1}',
    b'{"a": {"b": 1, "b": 2}}',
    b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"a": ' + b'{"a": ' * 50 + b"1" + b"}" * 50 + b"}",
    b"[" * 1_000_000,
    b"{" + b" " * 3_000_000 + b"}",
)


def places(body: serializers.BaseSerializer[Any], path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Path of every field of a body, those inside its objects and lists included."""
    for name, field in body.fields.items():
        yield (*path, name)
        if isinstance(field, Body):
            yield from places(field, (*path, name))
        elif isinstance(field, serializers.ListField):
            yield (*path, name, 0)
            if isinstance(field.child, Body):
                yield from places(field.child, (*path, name, 0))


def with_value(body: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The body with ``value`` at ``path``; objects and lists on the way are made."""
    changed = deepcopy(body)
    at: Any = changed
    for step, following in pairwise(path):
        empty: Any = [None] if following == 0 else {}
        if isinstance(at, list):
            at[step] = at[step] if at[step] is not None else empty
        elif not at.get(step):
            at[step] = empty
        at = at[step]
    at[path[-1]] = value
    return changed


def assert_problem(answer: Any, about: Any) -> None:
    """A refusal in the agreed shape that neither repeats long values nor shows our insides."""
    problem = answer.json()
    assert isinstance(problem["detail"], str), about
    assert isinstance(problem["code"], str), about
    assert all(isinstance(text, str) for texts in problem.get("errors", {}).values() for text in texts), about
    assert HUGE not in answer.content.decode(), about
    assert "Traceback" not in answer.content.decode(), about


@pytest.mark.parametrize("act", [act for act in acts() if any(places(act.view.body_class()))], ids=str)
def test_w31_every_field_takes_any_value_without_a_5xx(act: Served, world: World, keys: Keys) -> None:
    ready = prepared(world, keys)
    api = client(ready.person(act))
    path, body = ready.path(act), ready.bodies[act.view]
    statuses: set[int] = set()
    fields = list(places(act.view.body_class()))
    for field in fields:
        for value in VALUES:
            sent = with_value(body, field, value)
            before = written()
            answer = api.post(path, json.dumps(sent), content_type="application/json")
            about = (
                field,
                value if len(repr(value)) < 80 else type(value),
                answer.status_code,
                answer.content[:300],
            )
            assert answer.status_code < 500, about
            statuses.add(answer.status_code)
            if answer.status_code != 200:
                assert_problem(answer, about)
                assert written() == before, about
    assert 400 in statuses
    # The bodies really get as far as the verb.
    assert statuses & {200, 404, 409}


def test_every_post_refuses_what_is_no_json_object(world: World, keys: Keys) -> None:
    ready = prepared(world, keys)
    before = written()
    for act, raw in product(acts(), RAW):
        api = client(ready.person(act))
        answer = api.generic("POST", ready.path(act), raw, content_type="application/json")
        assert answer.status_code in (400, 413), (str(act), raw[:40], answer.content[:300])
        assert_problem(answer, raw[:40])
    assert written() == before


OTHER_TYPES = (
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/xml",
    "/",
    "\x00",
)


def test_every_post_refuses_other_content_types(world: World, keys: Keys) -> None:
    ready = prepared(world, keys)
    for act, content_type in product(acts(), OTHER_TYPES):
        api = client(ready.person(act))
        answer = api.generic("POST", ready.path(act), b'{"a": 1}', content_type=content_type)
        assert (answer.status_code, answer.json()["code"]) == (400, "not_json"), (str(act), content_type)
        assert "application/json" in answer.json()["detail"]


NAMES_NOTHING = (
    "unknown",
    "%00",
    "a%00b",
    "%ff",
    "..",
    "%2e%2e",
    "a%2Fb",
    "%E2%80%AE",
    "x" * 3_000,
    "%0a",
    "-",
    "'",
    "%25s",
    "\u00e9",
)


def test_ids_in_the_path_name_something_or_nothing(world: World, keys: Keys) -> None:
    ready = prepared(world, keys)
    before = written()
    with_ids = [act for act in acts() if "{" in act.path]
    assert len(with_ids) >= 4
    for act, identifier in product(with_ids, NAMES_NOTHING):
        path = act.path.format(**dict.fromkeys(ready.ids, identifier))
        answer = client(ready.person(act)).post(path, ready.bodies[act.view], format="json")
        assert answer.status_code == 404, (str(act), identifier[:40], answer.content[:300])
        assert_problem(answer, identifier[:40])
    assert written() == before


def test_identity_in_a_body_is_refused(world: World, keys: Keys) -> None:
    ready = prepared(world, keys)
    before = written()
    values = (None, {"email": "somebody@example.org"}, "token")
    for act, key, value in product(acts(), ("actor_claims", "actor_token"), values):
        body = {**ready.bodies[act.view], key: value}
        answer = client(ready.person(act)).post(ready.path(act), body, format="json")
        assert (answer.status_code, answer.json()["code"]) == (400, "identity_in_body"), (str(act), key)
    assert written() == before
