"""Every column of evidence and state is told by the records, or listed with the reason why it cannot be."""

import pytest
from django.apps import apps

from evidence import guards
from evidence.documents import KINDS
from evidence.domain import replay
from tests.architecture.test_models import MUTABLE

# Held by the pass over the entries, row by row (``tests/evidence/test_verification.py``).
LEDGER = {
    "evidence.CaseLink",
    "evidence.Checkpoint",
    "evidence.LedgerHead",
    "evidence.MerkleNode",
    "evidence.Record",
    "evidence.RecordKey",
    "evidence.SealEntry",
}
# Configuration whose records hold the values; of the rest they hold none.
CONFIGURED = {"evidence.RetentionRule"}
STATE = sorted(
    CONFIGURED
    | {
        guard.model
        for guard in guards.GUARDS
        if isinstance(guard, guards.AppendOnly | guards.NeverDeleted) and guard.model not in LEDGER
    }
)


@pytest.mark.parametrize("model", STATE)
def test_every_column_is_told_or_listed(model: str) -> None:
    table = replay.TABLES[model]
    columns = {field.name for field in apps.get_model(model)._meta.local_concrete_fields}
    named = {path.partition("__")[0] for path in table.paths()}
    listed = replay.NOT_EVIDENCE.get(model, {})
    keys = {field.name for field in apps.get_model(model)._meta.pk_fields}
    assert columns - keys == (named | set(listed)) & columns - keys
    assert not named & set(listed)
    assert set(listed) <= columns
    assert all(len(reason) > 20 for reason in listed.values())


def test_nothing_else_is_told_or_listed() -> None:
    assert set(replay.TABLES) == set(STATE)
    assert set(replay.NOT_EVIDENCE) <= set(STATE) | LEDGER


def test_configuration_is_told_or_named_as_not_compared() -> None:
    recorded = {model for model, why in MUTABLE.items() if why.endswith(("is a record", "are records"))}
    assert recorded - CONFIGURED == replay.UNTOLD


def test_every_kind_of_record_says_something_or_is_listed() -> None:
    assert set(KINDS) == set(replay.RULES) | set(replay.SILENT)
    assert not set(replay.RULES) & set(replay.SILENT)
    for rule in replay.RULES.values():
        assert set(rule.tables) <= set(replay.TABLES)
