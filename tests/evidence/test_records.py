"""P12: evidence as bytes. One document, one sequence of bytes, one digest."""

import hashlib
import json
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import rfc8785
from django.db.models import Model
from hypothesis import given
from hypothesis import strategies as st

from evidence.documents import CONNECTOR_DELIVERY, GENESIS, KINDS, PERSON, Kind, register
from evidence.domain import records
from evidence.errors import InvalidInput
from evidence.models import Person, Record, RecordCounter, RecordKey
from tests.evidence.rows import NOON, draft

PAYLOAD = {
    "person_id": "person-1",
    "person_name": "ann",
    "person_kind": "human",
    "owner_id": "",
    "change": "created",
    "at": "2026-03-01",
}


# --- RFC 8785 ----------------------------------------------------------------------------------------------------


def test_the_strings_of_the_rfc() -> None:
    """RFC 8785 section 3.2.2.2: two-letter escapes, lower-case \\u00xx, everything else as it is."""
    text = "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/"
    assert records.canonical(text) == b'"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'
    assert records.canonical("\b\t\n\f\r\x00\x1f\x7f") == b'"\\b\\t\\n\\f\\r\\u0000\\u001f\x7f"'


def test_keys_are_sorted_by_utf_16() -> None:
    """RFC 8785 section 3.2.3: U+1F600 is D83D DE00 in UTF-16 and comes before U+FB01."""
    document = {"\ufb01": 1, "\U0001f600": 2, "\u20ac": 3, "\r": 4, "1": 5, "\u0080": 6, "\u00f6": 7}
    assert list(json.loads(records.canonical(document))) == [
        "\r",
        "1",
        "\u0080",
        "\u00f6",
        "\u20ac",
        "\U0001f600",
        "\ufb01",
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    (
        (0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-1, "-1"),
        (1.5, "1.5"),
        (2.125, "2.125"),
        (0.001, "0.001"),
        (-0.001, "-0.001"),
        (1e15, "1000000000000000"),
        (2**53 - 1, "9007199254740991"),
        (-(2**53) + 1, "-9007199254740991"),
        (True, "true"),
        (None, "null"),
    ),
)
def test_numbers(number: Any, text: str) -> None:
    assert records.canonical(number) == text.encode()


@pytest.mark.parametrize(
    "number",
    (2**53, -(2**53), 10**400, 0.0001, 0.1 + 0.2, 1e16, 1e300, float("nan"), float("inf"), float("-inf")),
)
def test_numbers_that_readers_might_read_differently_are_refused(number: float) -> None:
    with pytest.raises(InvalidInput) as refusal:
        records.canonical({"outer": [{"inner": number}]})
    assert (refusal.value.code, refusal.value.errors) == ("number", {"outer.inner": ["number"]})


@pytest.mark.parametrize(
    "document",
    ({"text": "e\u0301"}, {"text": "\ud800"}, {"text": ["\udfff"]}, {"e\u0301": 1}, {"\ud800": 1}),
    ids=("decomposed", "high surrogate", "low surrogate", "decomposed key", "surrogate key"),
)
def test_text_without_one_form_is_refused_and_not_repeated(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refusal:
        records.canonical(document)
    assert refusal.value.code == "text"
    assert "\u0301" not in refusal.value.detail


@pytest.mark.parametrize(
    "value", (b"bytes", {1: "key"}, {"a", "set"}, NOON), ids=lambda value: type(value).__name__
)
def test_what_json_does_not_have_is_a_mistake(value: Any) -> None:
    with pytest.raises(rfc8785.CanonicalizationError):
        records.canonical(value)


text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20).map(
    lambda t: unicodedata.normalize("NFC", t)
)
numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.integers(-(10**9), 10**9).map(lambda n: n / 1000)
documents = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


@given(documents)
def test_reading_and_writing_again_changes_nothing(document: Any) -> None:
    body = records.canonical(document)
    assert json.loads(body) == document
    assert records.canonical(json.loads(body)) == body


@given(st.dictionaries(text, documents, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(document: dict[str, Any], random: Any) -> None:
    items = list(document.items())
    random.shuffle(items)
    assert records.canonical(dict(items)) == records.canonical(document)


# --- ids, digests, time ------------------------------------------------------------------------------------------


def test_ids_are_opaque_or_from_content() -> None:
    minted = {records.mint_id(PERSON) for _ in range(50)}
    assert len(minted) == 50
    assert all(len(name) == len("personrec-") + 16 and name.startswith("personrec-") for name in minted)
    assert records.content_id(PERSON, {"a": 1, "b": 2}) == records.content_id(PERSON, {"b": 2, "a": 1})
    assert records.content_id(PERSON, {"a": 1}) != records.content_id(PERSON, {"a": 2})


def test_ids_fit_their_column() -> None:
    assert max(len(records.mint_id(kind)) for kind in KINDS.values()) <= _limit(Record, "record_id")


def test_time_is_utc_with_six_digits() -> None:
    moment = datetime(2026, 6, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))
    assert records.timestamp(moment) == "2026-06-01T10:30:00.000000+00:00"
    assert (
        records.timestamp(datetime(2026, 6, 1, 12, 30, 0, 7, tzinfo=UTC))
        == "2026-06-01T12:30:00.000007+00:00"
    )


# --- drafts ------------------------------------------------------------------------------------------------------


def test_the_digest_is_over_the_bytes_and_covers_everything() -> None:
    made = draft("case-1")
    assert made.digest == hashlib.sha256(made.body).hexdigest()
    assert records.canonical(records.load(made.body)) == made.body
    document = records.load(made.body)
    assert document.keys() == {
        "v", "kind", "id", "at", "actor", "cases", "references", "counts", "payload", "nonce",
    }  # fmt: skip
    assert (document["id"], document["kind"], document["cases"]) == (made.record_id, "person", ["case-1"])


def test_the_same_document_twice_has_two_digests() -> None:
    """The nonce: whoever guesses a short document cannot confirm the guess from its digest."""
    first, second = (records.draft(PERSON, "personrec-1", PAYLOAD, at=NOON, by=None) for _ in range(2))
    assert first.digest != second.digest
    nonces = [records.load(made.body)["nonce"] for made in (first, second)]
    assert all(len(bytes.fromhex(nonce)) == 16 for nonce in nonces)
    without = [{**records.load(made.body), "nonce": ""} for made in (first, second)]
    assert without[0] == without[1]


@pytest.mark.parametrize("payload", ({}, {**PAYLOAD, "extra": 1}, {**PAYLOAD, "product": "mine"}))
def test_a_payload_has_exactly_the_keys_of_its_kind(payload: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="person: keys differ"):
        records.draft(PERSON, "personrec-1", payload, at=NOON, by=None)


def test_cases_are_named_once_and_no_more_than_200() -> None:
    assert draft("a", "b", "a").cases == ("a", "b")
    draft(*(f"case-{number}" for number in range(200)))
    with pytest.raises(ValueError, match="at most 200 cases, not 201"):
        draft(*(f"case-{number}" for number in range(201)))


def test_what_is_claimed_is_kept_apart_from_who_acted() -> None:
    ann = Person(person_id="person-7", username="ann")
    made = records.draft(PERSON, "personrec-1", PAYLOAD, at=NOON, by=ann, claimed_actor="Bob")
    assert records.load(made.body)["actor"] == {"person_id": "person-7", "name": "ann", "claimed": "Bob"}
    assert ("actor", "ann") in made.keys
    assert ("actor", "person-7") in made.keys
    assert "Bob" not in {value for _, value in made.keys}
    assert (made.view["signer"], made.view["claimed_actor"]) == ("ann", "Bob")


def test_a_quoted_record_brings_its_hash() -> None:
    quoted = draft()
    made = records.draft(PERSON, "personrec-2", PAYLOAD, at=NOON, by=None, references=[quoted.reference])
    assert records.load(made.body)["references"] == [
        {"kind": "person", "id": quoted.record_id, "hash": quoted.digest}
    ]


# --- search keys and states --------------------------------------------------------------------------------------


def keys_of(kind: Kind, payload: dict[str, Any], cases: tuple[str, ...] = ()) -> dict[str, list[str]]:
    document = {
        "id": "Quoted-1",
        "payload": payload,
        "cases": list(cases),
        "references": [{"kind": "k", "id": "quoted-2", "hash": "h"}],
        "actor": {"name": "ann", "person_id": "person-7"},
    }
    found: dict[str, list[str]] = {}
    for name, value in records.search_keys(kind, document):
        found.setdefault(name, []).append(value)
    return found


def test_search_keys_come_from_the_payload() -> None:
    payload = {
        "connector_delivery_source": "s",
        "delivery_success": False,
        "providers": ["splunk", "jira"],
        "failed_providers": ["jira"],
        "audit_id": "",
        "delivery_id": "d-1",
        "event_id": "d-1",
        "deliveries": [{"failure_class": "dns"}, {"failure_class": ""}, {"failure_class": None}, {}],
    }
    assert keys_of(CONNECTOR_DELIVERY, payload, cases=("d-1.jira", "d-1.splunk")) == {
        "metadata_kind": ["release-connector-delivery"],
        "history": ["default"],
        "connector_delivery_source": ["s"],
        "delivery_success": ["false"],
        "provider": ["splunk", "jira"],
        "delivery_id": ["d-1"],
        "schedule_id": ["d-1"],
        "failure_class": ["dns"],
        "case": ["d-1.jira", "d-1.splunk"],
        "actor": ["ann", "person-7"],
        # Whatever has a name in it: the document, its cases, the ids it speaks of, what it quotes.
        "any": ["quoted-1", "d-1", "d-1.jira", "d-1.splunk", "quoted-2"],
    }


def test_kinds_of_our_own_are_outside_the_default_history() -> None:
    assert "history" not in keys_of(PERSON, PAYLOAD)


def test_values_longer_than_their_column_are_cut_the_same_way_each_time() -> None:
    long = "x" * 300
    found = keys_of(PERSON, {**PAYLOAD, "person_id": long})
    assert found["person_id"] == [long[:200]]


def test_every_kind_fits_its_columns() -> None:
    """SQLite does not mind a long name; PostgreSQL refuses the append."""
    names = {records.ANY, *(name for kind in KINDS.values() for name in (*kind.keys, *dict(kind.fixed_keys)))}
    assert [name for name in names if len(name) > _limit(RecordKey, "name")] == []
    for model in (Record, RecordCounter):
        assert [name for name in KINDS if len(name) > _limit(model, "kind")] == []


def _limit(model: type[Model], field: str) -> int:
    limit = model._meta.get_field(field).max_length
    assert limit
    return limit


def test_states_are_counted_as_text_and_joined() -> None:
    payload = {"connector_delivery_source": "drill", "delivery_success": True, "change": "created"}
    assert records.state_of(CONNECTOR_DELIVERY, {"payload": payload}) == "drill/true"
    assert records.state_of(PERSON, {"payload": payload}) == "created"
    assert records.state_of(GENESIS, {"payload": payload}) == ""


# --- views -------------------------------------------------------------------------------------------------------


def test_a_view_shows_the_document_and_where_it_stands() -> None:
    made = draft("case-1")
    view = records.view(PERSON, memoryview(made.body), made.digest, index=7)
    assert (view["session_id"], view["created_at"]) == (made.record_id, records.timestamp(NOON))
    assert (view["record_hash"], view["leaf_index"], view["case"]) == (made.digest, 7, "case-1")
    assert view["person"]["person_name"] == "ann"
    assert view["person"][PERSON.hash_field] == made.digest
    assert view["decision_count"] == 1


def test_a_view_of_an_erased_record_keeps_ids_and_hash_only() -> None:
    assert records.view(PERSON, None, "ab" * 32, index=7) == {
        "schema_version": records.METADATA_SCHEMA,
        "product": "CAVRA",
        "metadata_kind": "person",
        "record_hash": "ab" * 32,
        "leaf_index": 7,
        "erased": True,
    }


def test_a_kind_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'person' or its prefix is taken"):
        register(PERSON)
    assert KINDS["person"] is PERSON
