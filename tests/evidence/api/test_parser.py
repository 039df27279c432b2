"""I-JSON and nothing else (RFC 7493; CONTRACT, rows "JSON" and "numbers")."""

import io
import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from django.conf import LazySettings
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.exceptions import ParseError

from evidence.api.parsers import MAX_DEPTH, BodyTooLarge, StrictJSONParser, parse_object
from evidence.api.renderers import JSONRenderer


def nested(levels: int) -> bytes:
    return b'{"a": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize(
    ("data", "expected"),
    (
        (b"{}", {}),
        (b' {"a": [1, true, null, "x"]} ', {"a": [1, True, None, "x"]}),
        (b'{"a": 9007199254740991, "b": -9007199254740991}', {"a": 2**53 - 1, "b": -(2**53) + 1}),
        (b'{"a": 0.125}', {"a": Decimal("0.125")}),
        (b'{"a": 1.50000}', {"a": Decimal("1.5")}),
        (b'{"a": 1e3}', {"a": Decimal(1000)}),
        ('{"a": "\u00e9\U0001f9ea"}'.encode(), {"a": "\u00e9\U0001f9ea"}),
        (b'{"a": "\\ud83e\\uddea"}', {"a": "\U0001f9ea"}),
    ),
)
def test_objects_are_read_without_loss(data: bytes, expected: dict[str, Any]) -> None:
    assert parse_object(data) == expected


@pytest.mark.parametrize(
    ("data", "code"),
    (
        (b"", "not_json"),
        (b"[]", "not_json"),
        (b"null", "not_json"),
        (b'"x"', "not_json"),
        (b"{'a': 1}", "not_json"),
        (b'{"a": 1} x', "not_json"),
        (b"\xff", "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b'{"a": 1, "a": 2}', "duplicate_key"),
        (b'{"a": [{"b": 1, "b": 1}]}', "duplicate_key"),
        (b'{"\\u0061": 1, "a": 2}', "duplicate_key"),
        (b'{"a": NaN}', "number"),
        (b'{"a": -Infinity}', "number"),
        (b'{"a": 9007199254740992}', "number"),
        (b'{"a": ' + b"1" * 5_000 + b"}", "number"),
        (b'{"a": 9007199254740991.5}', "number"),
        (b'{"a": 1e999999999}', "number"),
        (b'{"a": 1e-4}', "number"),
        (b'{"a": 0.1234}', "number"),
        (b'{"a": "\\ud800"}', "text"),
        (b'{"a\\udc00": 1}', "text"),
        (b'{"a": "\\ufffe"}', "text"),
        ('{"a": "\U0001ffff"}'.encode(), "text"),
        (nested(MAX_DEPTH + 1), "too_deep"),
        (b'{"a": ' * 100_000, "too_deep"),
    ),
)
def test_everything_else_is_refused_by_name(data: bytes, code: str) -> None:
    with pytest.raises(ParseError) as refused:
        parse_object(data)
    assert refused.value.get_codes() == code


def test_the_deepest_body_allowed_is_read() -> None:
    assert parse_object(nested(MAX_DEPTH))


def test_a_body_is_read_up_to_its_limit_only(settings: LazySettings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    assert StrictJSONParser().parse(io.BytesIO(b'{"a": 100}')) == {"a": 100}
    stream = io.BytesIO(b'{"a": 1000}' + b" " * 1_000)
    with pytest.raises(BodyTooLarge):
        StrictJSONParser().parse(stream)
    assert stream.tell() == 11


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    with suppress(ParseError):
        assert isinstance(parse_object(data), dict)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53) + 1, 2**53 - 1)
        | st.text(alphabet=st.characters(codec="ascii")),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet="abc"), inner),
        max_leaves=20,
    )
)
def test_what_is_i_json_comes_through_unchanged(value: Any) -> None:
    assert parse_object(json.dumps({"a": value}).encode()) == {"a": value}


def test_answers_are_compact_utf8_with_decimals_as_numbers() -> None:
    assert (
        JSONRenderer().render({"a": Decimal("1.5"), "b": Decimal(2), "c": "\u00e9"})
        == '{"a":1.5,"b":2,"c":"\u00e9"}'.encode()
    )
