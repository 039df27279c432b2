"""A restored database does not act as if nothing happened: two people start a new log (P25)."""

import io
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test import Client

from evidence.checks import origin_fits
from evidence.documents import EPOCH, EPOCH_PROPOSAL, LEDGER_KEY
from evidence.domain import (
    checkpoints,
    epochs,
    heads,
    health,
    live,
    log_keys,
    notes,
    people,
    records,
    surroundings,
    verification,
)
from evidence.domain.clock import system_clock
from evidence.domain.epochs import KnownHead
from evidence.enums import EpochState, Role
from evidence.errors import Conflict, DomainError, InvalidInput, NotAllowed
from evidence.models import EpochProposal, LedgerHead, Person, Record
from tests.builders import Clock, person
from tests.heads import data_of_its_own, lay_outside

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    data_of_its_own(monkeypatch, tmp_path)
    return tmp_path


@pytest.fixture
def administrator() -> Person:
    return person(Role.ADMINISTRATOR, name="r.novak")


@pytest.fixture
def auditor() -> Person:
    return person(Role.AUDITOR, name="s.weber")


@pytest.fixture
def behind(administrator: Person, auditor: Person) -> KnownHead:
    """A database that lacks the newest entries of its log."""
    return epochs.head_in(lay_outside(ahead=5))


def proposed(by: Person, **values: Any) -> EpochProposal:
    return epochs.propose(reason="disk lost; backup of 10:00", by=by, clock=system_clock, **values)


def payload(record: Record) -> dict[str, Any]:
    said = records.payload_of(record)
    assert said is not None
    return said


# --- what a head outside stops ------------------------------------------------------------------------------------


def beside_it(head: LedgerHead) -> Path:
    return lay_outside(size=head.size)


OUTSIDE: dict[str, Callable[[LedgerHead], Path]] = {
    "behind": lambda head: lay_outside(ahead=5),
    "beside": beside_it,
    "of another log": lambda head: lay_outside(origin="elsewhere"),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_p25_a_head_outside_that_does_not_fit_stops_live_work_and_no_reading(
    case: str, auditor: Person
) -> None:
    assert live.reasons_against_live(system_clock) == []
    path = OUTSIDE[case](LedgerHead.objects.get())
    assert [code for code, _ in live.reasons_against_live(system_clock)] == ["ledger_behind"]
    assert not health.checks(clock=system_clock)["ledger"]
    (said, *_) = surroundings.look(system_clock()).banners
    assert (said.tone, said.then) == ("bad", "Nothing is sent; everything can be read.")
    browser = Client()
    browser.force_login(auditor)
    page = browser.get("/console/")
    assert (page.status_code, said.fact in page.content.decode().replace("&#x27;", "'")) == (200, True)
    path.unlink()
    assert live.reasons_against_live(system_clock) == []


def test_p25_the_same_file_beside_the_same_tree_is_looked_at_once(
    auditor: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def looked() -> list[tuple[str, str]]:
        asked.append(1)
        return []

    monkeypatch.setattr(checkpoints, "ledger_behind", looked)
    path = lay_outside()
    for _ in range(3):
        live.require_log()
    assert len(asked) == 1
    people.grant_role(auditor, Role.VIEWER, by=None, clock=system_clock)
    live.require_log()
    os.utime(path, ns=(1, 1))
    live.require_log()
    assert len(asked) == 3


def test_p25_a_head_that_shows_the_database_to_be_behind_is_not_written_over(
    signing: bytes, auditor: Person
) -> None:
    """Signed heads of an older epoch do not take the place of a newer one's."""
    assert checkpoints.make(clock=system_clock)
    path = lay_outside(origin="test.example/log/epoch-2", size=50)
    before = path.read_bytes()
    assert checkpoints.make(clock=system_clock) is None
    people.grant_role(auditor, Role.VIEWER, by=None, clock=system_clock)
    with pytest.raises(Conflict) as refused:
        checkpoints.make(clock=system_clock)
    assert refused.value.code == "ledger_behind"
    assert path.read_bytes() == before


@pytest.fixture
def signing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bytes:
    """A key that signs the heads of this log; its public half."""
    public = log_keys.make(tmp_path / "key")
    monkeypatch.setattr(settings, "CAVRA_LEDGER_KEYS", [f"file:{tmp_path / 'key'}"])
    log_keys.introduce(by=None, clock=system_clock)
    return public


# --- two people ---------------------------------------------------------------------------------------------------


def test_p25_a_new_epoch_goes_on_under_a_new_name_and_quotes_the_old_log(
    signing: bytes, administrator: Person, auditor: Person
) -> None:
    first = checkpoints.make(clock=system_clock)
    assert first is not None
    path = lay_outside(ahead=5)
    before = LedgerHead.objects.get()
    known = epochs.head_in(path)
    proposal = proposed(administrator)
    assert LedgerHead.objects.get().epoch == 1
    facts = [banner.fact for banner in surroundings.look(system_clock()).banners]
    assert "r.novak proposed a new epoch of the log." in facts
    record = epochs.confirm(proposal, by=auditor, clock=system_clock)
    head = LedgerHead.objects.get()
    assert (head.origin, head.epoch) == (f"{before.origin}/epoch-2", 2)
    said = payload(record)
    assert (record.kind, said["epoch"], said["origin"]) == (EPOCH.name, 2, head.origin)
    # The proposal was still written into the old log.
    assert (said["first_index"], record.index, said["first_lost_index"]) == (
        before.size + 1,
        before.size + 1,
        before.size,
    )
    assert (said["old_origin"], said["known_origin"], said["known_size"], said["known_root"]) == (
        before.origin,
        before.origin,
        known.size,
        known.root,
    )
    assert (said["proposed_by"], said["confirmed_by"]) == ("r.novak", "s.weber")
    assert said["reason"] == "disk lost; backup of 10:00"
    # The same key signs under the new name, and the new head lies outside.
    assert payload(Record.objects.filter(kind=LEDGER_KEY.name).latest("index"))["name"] == head.origin
    signed = checkpoints.make(clock=system_clock)
    assert signed is not None
    assert not checkpoints.keep_outside()  # The first one was kept already.
    outside = checkpoints.outside_head()
    assert outside is not None
    assert (signed.epoch, outside.origin, outside.size) == (2, head.origin, head.size)
    assert live.reasons_against_live(system_clock) == []
    people.grant_role(auditor, Role.VIEWER, by=None, clock=system_clock)
    assert list(verification.verify()) == []
    proposal.refresh_from_db()
    assert (proposal.state, proposal.decided_by) == (EpochState.CONFIRMED, auditor)


def test_p25_the_third_epoch_follows_the_second(
    behind: KnownHead, administrator: Person, auditor: Person
) -> None:
    origin = LedgerHead.objects.get().origin
    epochs.confirm(proposed(administrator), by=auditor, clock=system_clock)
    again = proposed(auditor, although_not_behind=True)
    epochs.confirm(again, by=administrator, clock=system_clock)
    assert str(LedgerHead.objects.get()).startswith(f"{origin}/epoch-3 at ")
    assert list(verification.verify()) == []


def test_p25_a_key_is_not_needed(behind: KnownHead, administrator: Person, auditor: Person) -> None:
    """The file of the ended log stays where it is and stops nobody; a larger one of it still does."""
    epochs.confirm(proposed(administrator), by=auditor, clock=system_clock)
    assert live.reasons_against_live(system_clock) == []
    lay_outside(origin=behind.origin, size=behind.size + 1)
    assert [code for code, _ in live.reasons_against_live(system_clock)] == ["ledger_behind"]


def test_p25_what_was_written_after_the_restore_is_not_the_old_log_s(
    behind: KnownHead, administrator: Person, auditor: Person
) -> None:
    """The file's own time tells which entries the old log cannot have had."""
    size = LedgerHead.objects.get().size
    moment = Record.objects.get(index=size - 3).created_at + timedelta(microseconds=1)
    os.utime(checkpoints.outside_path(), ns=(0, int(moment.timestamp() * 1_000_000) * 1000))
    proposal = proposed(administrator)
    assert proposal.first_lost_index == size - 2
    said = payload(Record.objects.get(record_id=proposal.proposal_id))
    assert said["kept_until"] == records.timestamp(Record.objects.get(index=size - 3).created_at)


def late(name: str, *roles: Role) -> Person:
    return person(*roles, name=name)


REFUSED: dict[str, tuple[Callable[[Person, Person], object], str]] = {
    "the same person twice": (
        lambda one, other: epochs.confirm(proposed(one), by=one, clock=system_clock),
        "second_person_required",
    ),
    "a role that came after the proposal": (
        lambda one, other: epochs.confirm(proposed(one), by=late("new", Role.AUDITOR), clock=system_clock),
        "second_person_required",
    ),
    "no role to propose": (
        lambda one, other: proposed(person(Role.APPROVER, Role.OPERATOR)),
        "role_required",
    ),
    "no role to confirm": (
        lambda one, other: epochs.confirm(proposed(one), by=person(Role.ANALYST), clock=system_clock),
        "role_required",
    ),
    "a second proposal": (lambda one, other: (proposed(one), proposed(other)), "proposal_open"),
    "a withdrawn proposal": (
        lambda one, other: epochs.confirm(withdrawn(proposed(one), other), by=other, clock=system_clock),
        "proposal_ended",
    ),
    "a larger head by now": (
        lambda one, other: epochs.confirm(with_larger_head(proposed(one)), by=other, clock=system_clock),
        "proposal_stale",
    ),
    "no reason": (lambda one, other: epochs.propose(reason=" ", by=one, clock=system_clock), "invalid"),
    "a name no key can sign as": (lambda one, other: proposed(one, origin="a b"), "invalid"),
    "the present name": (
        lambda one, other: proposed(one, origin=LedgerHead.objects.get().origin),
        "invalid",
    ),
}


def withdrawn(proposal: EpochProposal, by: Person) -> EpochProposal:
    epochs.withdraw(proposal, reason="the newest copy was found", by=by, clock=system_clock)
    return proposal


def with_larger_head(proposal: EpochProposal) -> EpochProposal:
    lay_outside(ahead=50)
    return proposal


@pytest.mark.parametrize("case", REFUSED)
def test_p25_refusals(case: str, behind: KnownHead, administrator: Person, auditor: Person) -> None:
    act, code = REFUSED[case]
    with pytest.raises((InvalidInput, NotAllowed, Conflict)) as refused:
        act(administrator, auditor)
    assert isinstance(refused.value, DomainError)
    assert refused.value.code == code
    assert LedgerHead.objects.get().epoch == 1
    assert list(verification.verify()) == []


def test_p25_a_database_that_is_not_behind_needs_to_be_told(administrator: Person, auditor: Person) -> None:
    """The head outside may be lost with the machine; who knows of a restore says so."""
    with pytest.raises(Conflict) as refused:
        proposed(administrator)
    assert refused.value.code == "not_behind"
    proposal = proposed(administrator, although_not_behind=True)
    assert (proposal.known_size, proposal.first_lost_index) == (0, LedgerHead.objects.get().size - 1)
    assert payload(Record.objects.get(kind=EPOCH_PROPOSAL.name))["behind"] == []
    epochs.confirm(proposal, by=auditor, clock=system_clock)
    assert LedgerHead.objects.get().epoch == 2


def test_p25_what_is_signed_while_a_proposal_waits_does_not_end_it(
    signing: bytes, administrator: Person, auditor: Person
) -> None:
    """The worker signs every minute, the proposal's own record too; a second person takes longer."""
    assert checkpoints.make(clock=system_clock)
    proposal = proposed(administrator, although_not_behind=True)
    meanwhile = checkpoints.make(clock=system_clock)
    assert meanwhile
    checkpoints.keep_outside()
    assert epochs.outside().size == meanwhile.size > proposal.known_size
    epochs.confirm(proposal, by=auditor, clock=system_clock)
    assert checkpoints.ledger_behind() == []
    assert [held.verdict for held in heads.beside()] == ["extends"]
    assert checkpoints.make(clock=system_clock)
    assert list(verification.verify()) == []
    # A head of the ended log over what was never here still stops everything.
    lay_outside(origin=proposal.old_origin, size=meanwhile.size)
    assert [code for code, _ in live.reasons_against_live(system_clock)] == ["ledger_behind"]


def test_p4_a_service_account_counts_as_who_answers_for_it(behind: KnownHead, administrator: Person) -> None:
    robot = person(Role.AUDITOR, name="robot", owner=administrator)
    with pytest.raises(NotAllowed) as refused:
        epochs.confirm(proposed(robot), by=administrator, clock=system_clock)
    assert refused.value.code == "second_person_required"


def test_p10_what_fails_on_the_way_changes_nothing(
    behind: KnownHead, administrator: Person, auditor: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposal = proposed(administrator)

    def broken(begun: epochs.Beginning) -> list[records.Draft]:
        raise RuntimeError

    monkeypatch.setattr(epochs, "_CONSEQUENCES", [broken])
    with pytest.raises(RuntimeError), transaction.atomic():
        epochs.confirm(proposal, by=auditor, clock=system_clock)
    proposal.refresh_from_db()
    assert (proposal.state, LedgerHead.objects.get().epoch) == (EpochState.PROPOSED, 1)


# --- what the database refuses ------------------------------------------------------------------------------------

HEADS: dict[str, dict[str, Any]] = {
    "another name": {"origin": "elsewhere"},
    "another epoch": {"epoch": 2},
    "an epoch left out": {"origin": "elsewhere", "epoch": 3},
    "an epoch back": {"origin": "elsewhere", "epoch": 0},
}


@pytest.mark.parametrize("case", HEADS)
def test_p25_the_database_lets_name_and_epoch_change_together_only(case: str, administrator: Person) -> None:
    with pytest.raises(IntegrityError, match="epoch_begins"), transaction.atomic():
        LedgerHead.objects.update(**HEADS[case])


def test_p25_a_closed_log_takes_no_entry(administrator: Person) -> None:
    LedgerHead.objects.update(closed_to="postgresql://db/cavra")
    with pytest.raises(Conflict) as refused, transaction.atomic():
        people.grant_role(administrator, Role.VIEWER, by=None, clock=system_clock)
    assert refused.value.code == "ledger_closed"
    with pytest.raises(IntegrityError, match="closed"), transaction.atomic():
        LedgerHead.objects.update(closed_to="")
    assert [code for code, _ in live.reasons_against_live(system_clock)] == ["ledger_closed"]
    assert not health.checks(clock=system_clock)["ledger"]
    assert "goes on in postgresql://db/cavra" in surroundings.look(system_clock()).banners[0].fact


# --- the command --------------------------------------------------------------------------------------------------


def run(*arguments: str, password: str = PASSWORD, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
    out = io.StringIO()
    call_command("new_epoch", *arguments, stdout=out, stderr=out)
    return out.getvalue()


def test_new_epoch_from_the_command_line(
    behind: KnownHead, administrator: Person, auditor: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run(
        "propose", "--by", "R.Novak", "--reason", "disk lost", "--password-stdin", monkeypatch=monkeypatch
    )
    assert f"{behind.origin} at {behind.size:,} entries, root {behind.root}" in said
    assert "disk lost" in run("show", monkeypatch=monkeypatch)
    said = run("confirm", "--by", "s.weber", "--password-stdin", monkeypatch=monkeypatch)
    assert said.startswith("Epoch 2 has begun: the log is ")
    assert "No key signs its heads here." in said
    with pytest.raises(CommandError, match="Nobody has proposed"):
        run("show", monkeypatch=monkeypatch)


def test_new_epoch_takes_the_head_that_somebody_kept(
    behind: KnownHead, administrator: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    checkpoints.outside_path().rename(kept)
    propose = ("propose", "--by", "r.novak", "--reason", "the machine was lost", "--password-stdin")
    with pytest.raises(CommandError, match="not behind"):
        run(*propose, "--known-head", str(kept), monkeypatch=monkeypatch)
    run(*propose, "--known-head", str(kept), "--not-behind", monkeypatch=monkeypatch)
    assert EpochProposal.objects.get().known_size == behind.size
    with pytest.raises(CommandError, match="cannot be read"):
        run(*propose, "--known-head", str(tmp_path / "none"), monkeypatch=monkeypatch)


@pytest.mark.parametrize(("name", "password"), (("r.novak", "wrong"), ("nobody", PASSWORD), ("robot", "")))
def test_new_epoch_needs_the_person_s_own_password(
    name: str, password: str, behind: KnownHead, administrator: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    person(Role.AUDITOR, name="robot", owner=administrator)
    with pytest.raises(CommandError, match="not signed in"):
        run(
            "propose",
            "--by",
            name,
            "--reason",
            "x",
            "--password-stdin",
            password=password,
            monkeypatch=monkeypatch,
        )
    assert not EpochProposal.objects.exists()


def test_new_epoch_withdraw(
    behind: KnownHead, administrator: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("propose", "--by", "r.novak", "--reason", "x", "--password-stdin", monkeypatch=monkeypatch)
    said = run(
        "withdraw", "--by", "r.novak", "--reason", "found", "--password-stdin", monkeypatch=monkeypatch
    )
    assert "nothing has changed" in said
    assert EpochProposal.objects.get().state == EpochState.WITHDRAWN
    assert list(verification.verify()) == []


def test_p25_a_clock_alone_is_still_asked(clock: Clock) -> None:
    clock.forward(minutes=-10)
    assert [code for code, _ in live.reasons_against_live(clock)] == ["clock_behind"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_p25_a_head_of_what_was_lost_is_no_rewrite(
    signing: bytes, administrator: Person, auditor: Person, tmp_path: Path
) -> None:
    kept = checkpoints.make(clock=system_clock)
    assert kept is not None
    size = LedgerHead.objects.get().size
    text = notes.checkpoint_text(kept.origin, size + 5, b"\1" * 32)
    lost = notes.signed(text, log_keys.signers())
    checkpoints.outside_path().parent.mkdir(exist_ok=True)
    checkpoints.outside_path().write_text(lost, encoding="utf-8")
    epochs.confirm(proposed(administrator), by=auditor, clock=system_clock)
    assert heads.hold_against(kept.note).verdict == "extends"
    held = heads.hold_against(lost)
    assert (held.verdict, f"those from {size:,} on are lost" in held.sentence) == ("lost", True)


@pytest.mark.django_db(transaction=True)
def test_p25_a_worker_ends_with_a_closed_log(administrator: Person) -> None:
    LedgerHead.objects.update(closed_to="postgresql db/cavra")
    with pytest.raises(CommandError, match="goes on in postgresql db/cavra"):
        call_command("worker", "--once")


def test_the_name_that_is_configured_may_be_that_of_an_ended_log(
    behind: KnownHead, administrator: Person, auditor: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "CAVRA_LEDGER_ORIGIN", LedgerHead.objects.get().origin)
    epochs.confirm(proposed(administrator), by=auditor, clock=system_clock)
    assert origin_fits(databases=["default"]) == []
    monkeypatch.setattr(settings, "CAVRA_LEDGER_ORIGIN", "elsewhere")
    assert len(origin_fits(databases=["default"])) == 1
