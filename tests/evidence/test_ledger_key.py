"""Keys of the log: made once, introduced, retired and revoked as records, never in the database."""

import io
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from evidence.connectors import credentials
from evidence.documents import LEDGER_KEY
from evidence.domain import checkpoints, heads, log_keys, notes, verification
from evidence.domain.clock import system_clock
from evidence.domain.notes import Verifier
from evidence.enums import KeyState, Role
from evidence.errors import Conflict, InvalidInput, NotAllowed, NotFound, Unavailable
from evidence.models import Checkpoint, LedgerHead, LedgerKey, Record
from tests.builders import person
from tests.evidence.ledger_keys import Keys
from tests.evidence.rows import append, draft
from tests.evidence.watch import appended

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("ledger_key", *arguments, stdout=out, stderr=out)
    return out.getvalue()


def ended(key_id: str, verb: Callable[..., LedgerKey] = log_keys.retire, **fields: Any) -> LedgerKey:
    return verb(key_id, **{"reason": "Rotated as planned.", "by": None, "clock": system_clock, **fields})


def signed() -> Checkpoint:
    """A head over something new."""
    append(draft())
    made = checkpoints.make(clock=system_clock)
    assert made
    return made


def who_signed(checkpoint: Checkpoint) -> set[bytes]:
    return {key.public_key for key in notes.opened(checkpoint.note, log_keys.verifiers()).signed_by}


# --- making ---------------------------------------------------------------------------------------------------------


def test_a_new_key_is_one_line_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key"
    public = log_keys.make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0
    form, encoded = path.read_text().split()
    assert (form, len(encoded), path.read_text().count("\n")) == ("CAVRA-LEDGER-KEY-1", 44, 1)
    assert log_keys.private_key(f"file:{path}").public_key().public_bytes_raw() == public


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "key"
    log_keys.make(path)
    before = path.read_bytes()
    with pytest.raises(Conflict) as refused:
        log_keys.make(path)
    assert refused.value.code == "ledger_key_exists"
    assert path.read_bytes() == before
    with pytest.raises(CommandError, match="stays as it is"):
        run("make", str(path))
    assert path.read_bytes() == before


def test_a_key_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Conflict):
        log_keys.make(tmp_path / "key")
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_may_come_from_the_environment(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    log_keys.make(keys.path("key"))
    monkeypatch.setenv("LEDGER_KEY", keys.path("key").read_text())
    monkeypatch.setattr(settings, "CAVRA_LEDGER_KEYS", ["env:LEDGER_KEY"])
    (row,) = log_keys.introduce(by=None, clock=system_clock)
    assert signed().note.count("— ") == 1
    assert [signer.public_key for signer in log_keys.signers()] == [bytes(row.public_key)]


@pytest.mark.parametrize(
    "content",
    (
        "",
        "CAVRA-LEDGER-KEY-1",
        "CAVRA-LEDGER-KEY-1 AAAA",
        "CAVRA-LEDGER-KEY-2 " + "A" * 43 + "=",
        "CAVRA-LEDGER-KEY-1 " + "!" * 44,
        "-----BEGIN PRIVATE KEY-----",
        "sécret",
    ),
)
def test_an_unusable_key_is_named_and_never_shown(keys: Keys, content: str) -> None:
    keys.folder.mkdir()
    keys.path("bad").write_text(content)
    keys.configure("bad")
    with pytest.raises(Unavailable) as refused:
        log_keys.signers()
    assert refused.value.code == "ledger_key_unusable"
    assert str(keys.path("bad")) in refused.value.detail
    if len(content) > len("CAVRA-LEDGER-KEY-1"):
        assert content not in refused.value.detail
    keys.configure("missing")
    with pytest.raises(Unavailable, match="cannot be read"):
        log_keys.signers()


def test_the_private_half_is_nowhere_in_the_database(keys: Keys) -> None:
    keys.add()
    signed()
    (key,) = log_keys.configured_keys().values()
    seed = key.private_bytes_raw()
    encoded = keys.path("key").read_text().split()[1]
    for record in Record.objects.all():
        assert encoded not in bytes(record.body or b"").decode()
        assert seed.hex() not in bytes(record.body or b"").decode()
    assert seed not in {bytes(row.public_key) for row in LedgerKey.objects.all()}


def test_a_connector_cannot_carry_it_to_a_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "CAVRA_LEDGER_KEYS", ["env:LEDGER_KEY"])
    monkeypatch.setenv("LEDGER_KEY", "CAVRA-LEDGER-KEY-1 …")
    with pytest.raises(credentials.Misconfigured, match="secret of this service"):
        credentials.resolve("env:LEDGER_KEY")


# --- introduced, retired, revoked -----------------------------------------------------------------------------------


def test_introducing_is_a_record_and_happens_once(keys: Keys) -> None:
    with appended() as log:
        row = keys.add()
        assert log_keys.introduce(by=None, clock=system_clock) == []
    assert log.kinds == [LEDGER_KEY.name]
    (payload,) = (document["payload"] for document in log.documents)
    assert payload["change"] == "introduced"
    assert payload["key_id"] == row.key_id
    key = Verifier.from_vkey(payload["vkey"])
    assert (key.name, key.public_key) == (LedgerHead.objects.get().origin, bytes(row.public_key))
    assert verification.report().first is None


def test_a_configured_key_that_was_not_introduced_signs_nothing(keys: Keys) -> None:
    log_keys.make(keys.path("key"))
    keys.configure("key")
    assert log_keys.signers() == []
    assert checkpoints.make(clock=system_clock) is None


def test_a_rotation_hands_over_by_a_head_that_both_signed(keys: Keys) -> None:
    old = keys.add("old")
    only_old = signed()
    new = keys.add("new")
    both = signed()
    assert who_signed(only_old) == {bytes(old.public_key)}
    assert who_signed(both) == {bytes(old.public_key), bytes(new.public_key)}
    with appended() as log:
        ended(old.key_id)
    assert [document["payload"]["change"] for document in log.documents] == ["retired"]
    only_new = signed()
    assert who_signed(only_new) == {bytes(new.public_key)}
    # What the old one signed stays good.
    assert heads.hold_against(only_old.note).verdict == "extends"
    assert [key.state for key in log_keys.verifiers()] == [KeyState.RETIRED, KeyState.ACTIVE]


def test_a_key_without_a_successor_that_signed_is_not_retired(keys: Keys) -> None:
    old = keys.add("old")
    for _ in range(2):  # before and after it signed alone
        with pytest.raises(Conflict) as refused:
            ended(old.key_id)
        assert refused.value.code == "no_overlap"
        signed()
    keys.add("new")
    with pytest.raises(Conflict):
        ended(old.key_id)
    signed()
    assert ended(old.key_id).state == KeyState.RETIRED


def test_a_revoked_key_signs_nothing_more_at_once(keys: Keys) -> None:
    row = keys.add()
    signed()
    with appended() as log:
        ended(row.key_id, log_keys.revoke, reason="The laptop was stolen.")
    assert log.documents[0]["payload"]["reason"] == "The laptop was stolen."
    append(draft())
    assert log_keys.signers() == []
    assert checkpoints.make(clock=system_clock) is None


def test_a_revoked_key_is_told_where_its_signature_counts(keys: Keys) -> None:
    """Whoever holds a stolen key could have signed any past; the head alone proves nothing then."""
    row = keys.add()
    note = signed().note
    ended(row.key_id, log_keys.revoke)
    held = heads.hold_against(note)
    assert [key.state for key in held.signed_by] == [KeyState.REVOKED]
    assert held.trusted is False


@pytest.mark.parametrize("verb", (log_keys.retire, log_keys.revoke))
def test_an_ended_key_does_not_come_back(keys: Keys, verb: Callable[..., LedgerKey]) -> None:
    old = keys.add("old")
    keys.add("new")
    signed()
    ended(old.key_id, verb)
    with pytest.raises(Conflict) as refused:
        log_keys.introduce(by=None, clock=system_clock)
    assert refused.value.code == "ledger_key_ended"
    with pytest.raises(Conflict):
        ended(old.key_id, verb)


def test_a_retired_key_may_still_be_revoked(keys: Keys) -> None:
    old = keys.add("old")
    keys.add("new")
    signed()
    ended(old.key_id)
    assert ended(old.key_id, log_keys.revoke).state == KeyState.REVOKED


def test_ending_a_key_needs_a_reason_a_key_and_an_administrator(keys: Keys) -> None:
    row = keys.add()
    with pytest.raises(InvalidInput):
        ended(row.key_id, log_keys.revoke, reason=" ")
    with pytest.raises(NotFound):
        ended("00000000", log_keys.revoke)
    with appended() as log:
        for role in set(Role) - {Role.ADMINISTRATOR}:
            somebody = person(role)
            for verb in (log_keys.retire, log_keys.revoke):
                with pytest.raises(NotAllowed):
                    ended(row.key_id, verb, by=somebody)
            with pytest.raises(NotAllowed):
                log_keys.introduce(by=somebody, clock=system_clock)
    assert LEDGER_KEY.name not in log.kinds
    assert ended(row.key_id, log_keys.revoke, by=person(Role.ADMINISTRATOR)).state == KeyState.REVOKED


def test_the_same_key_signs_under_the_new_name_of_the_log(keys: Keys) -> None:
    row = keys.add()
    old = signed()
    with transaction.atomic():
        drafts = log_keys.carry_over("cavra-new", at=system_clock(), by=None)
        append(*drafts)
    (renamed,) = LedgerKey.objects.filter(name="cavra-new")
    assert bytes(renamed.public_key) == bytes(row.public_key)
    assert renamed.key_id != row.key_id
    # Revoked under one name, it is revoked under all.
    ended(renamed.key_id, log_keys.revoke)
    assert {key.state for key in log_keys.verifiers()} == {KeyState.REVOKED}
    assert heads.hold_against(old.note).trusted is False


@pytest.mark.parametrize("change", ({"public_key": b"1" * 32}, {"name": "other"}, {"key_id": "00000000"}))
def test_the_database_keeps_what_a_key_is(keys: Keys, change: dict[str, Any]) -> None:
    row = keys.add()
    with pytest.raises(IntegrityError), transaction.atomic():
        LedgerKey.objects.filter(pk=row.pk).update(**change)
    with pytest.raises(IntegrityError), transaction.atomic():
        LedgerKey.objects.filter(pk=row.pk).delete()


# --- command line ---------------------------------------------------------------------------------------------------


def test_from_nothing_to_a_rotated_key_by_command(keys: Keys) -> None:
    assert "no head is signed" in run("show")
    with pytest.raises(CommandError, match="names no key"):
        run("add")
    with pytest.raises(CommandError, match="names no file"):
        run("make")
    keys.configure("one")
    assert "cannot be read" in run("show")
    printed = run("make")
    assert f"made {keys.path('one')}" in printed
    assert "to CAVRA_LEDGER_KEYS" not in printed
    assert "it was not introduced" in run("show")
    assert run("add").startswith("active ")
    assert run("add") == "Every configured key signs already.\n"
    printed = run("make", str(keys.path("two")))
    assert f"add file:{keys.path('two')} to CAVRA_LEDGER_KEYS" in printed
    keys.configure("one", "two")
    run("add")
    one, two = LedgerKey.objects.order_by("pk")
    with pytest.raises(CommandError, match="Introduce the successor"):
        run("retire", one.key_id, "--reason", "yearly")
    signed()
    assert (
        run("retire", one.key_id, "--reason", "yearly").strip() == f"retired {log_keys.vkey_of(one)} (yearly)"
    )
    assert run("revoke", two.key_id, "--reason", "lost").startswith("revoked ")
    assert f"{two.key_id} is revoked" in run("show")


def test_no_command_prints_a_private_key(keys: Keys) -> None:
    keys.configure("one")
    printed = run("make") + run("add") + run("show")
    assert keys.path("one").read_text().split()[1] not in printed
