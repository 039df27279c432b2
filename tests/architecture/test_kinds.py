"""The kinds tables describe what is there: fields they promise, verbs they name."""

import importlib
import importlib.util
import re
from collections import Counter

import pytest

from evidence.documents import KINDS, Kind

VERBS_LIVE_IN = ("evidence.domain", "recovery.domain", "recovery.execution")
# What the envelope of every record has; a promoted key of that name would hide it (CONTRACT §1.4).
ENVELOPE = {
    "schema_version",
    "product",
    "session_id",
    "created_at",
    "signer",
    "metadata_kind",
    "cases",
    "references",
}

kinds = pytest.mark.parametrize("kind", tuple(KINDS.values()), ids=tuple(KINDS))


def test_kinds_of_both_apps_are_there() -> None:
    assert len(KINDS) >= 20
    assert {kind.name for kind in KINDS.values()} == KINDS.keys()


@pytest.mark.parametrize("attribute", ("name", "prefix", "schema_version"))
def test_what_identifies_a_kind_is_its_own(attribute: str) -> None:
    found = Counter(getattr(kind, attribute) for kind in KINDS.values())
    assert [value for value, times in found.items() if times > 1] == []


@kinds
def test_ids_tell_their_kind(kind: Kind) -> None:
    """``<prefix>-<16 hex>``: no prefix may read like the start of another's id."""
    assert re.fullmatch(r"[a-z]+", kind.prefix)


@kinds
def test_a_kind_is_written_by_verbs_that_exist(kind: Kind) -> None:
    assert kind.written_by
    for name in kind.written_by:
        module, _, verb = name.partition(".")
        places = [
            f"{package}.{module}"
            for package in VERBS_LIVE_IN
            if importlib.util.find_spec(f"{package}.{module}")
        ]
        assert len(places) == 1, f"{name} is found in {places}"
        assert callable(getattr(importlib.import_module(places[0]), verb, None)), f"{places[0]} has no {verb}"


@kinds
def test_what_a_kind_promises_is_in_its_fields(kind: Kind) -> None:
    """A misspelt path finds nothing and a misspelt promoted key is left out, both silently."""
    known = {*kind.fields, "schema_version", "product", kind.id_field}
    if kind.controls:
        known.add("controls")
    assert set(kind.promoted) <= known | {kind.hash_field}
    assert {path.split(".")[0] for paths in kind.keys.values() for path in paths} <= known
    assert set(kind.state_fields) <= set(kind.own_fields)
    assert not set(kind.promoted) & ENVELOPE


@kinds
def test_the_builder_adds_nothing_that_a_verb_supplies(kind: Kind) -> None:
    assert (
        not {kind.id_field, kind.hash_field, "schema_version", "product", "controls"} & kind.own_fields.keys()
    )
