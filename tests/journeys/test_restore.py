"""A backup is restored after an approved retry had left: nothing is sent as if nothing had happened (P25)."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.core.management.color import no_style
from django.db import connection, transaction
from django.test import Client

from evidence import guards
from evidence.domain import checkpoints, log_keys, records, transfers, verification
from evidence.domain.clock import system_clock
from evidence.models import Case, LedgerHead, Record
from recovery.models import ApprovalEntry
from tests.conftest import vendor
from tests.heads import data_of_its_own
from tests.http import A
from tests.journeys.conftest import Cast

PASSWORD = "correct horse battery"


def ran(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command prints; whoever is asked gives their password."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
    out = io.StringIO()
    call_command(*(str(argument) for argument in arguments), stdout=out, stderr=out)
    return out.getvalue()


# --- backups of either database ------------------------------------------------------------------------------------


class SqliteBackup:
    """The product's own two commands."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = folder / "backup.sqlite3"
        self.patch = monkeypatch
        assert "records verified" in ran("backup", self.file, monkeypatch=monkeypatch)

    def restore(self) -> None:
        said = ran("restore", self.file, "--force", "the volume was lost", monkeypatch=self.patch)
        assert "Nothing live is done with it" in said
        own = Path(str(connection.settings_dict["NAME"]))
        for kept in own.parent.glob(f"{own.name}.before-restore-*"):
            kept.unlink()


class PostgresqlBackup:
    """Stands for pg_dump and pg_restore: every row of every table, kept aside and put back with the guards down."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tables = [model._meta.db_table for model in transfers._models()]
        with connection.cursor() as cursor:
            cursor.execute("CREATE SCHEMA kept")
            for table in self.tables:
                cursor.execute(f'CREATE TABLE kept."{table}" AS TABLE "{table}"')

    def restore(self) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            guards.drop()
            for statement in connection.ops.sql_flush(no_style(), self.tables, allow_cascade=True):
                cursor.execute(statement)
            for table in self.tables:
                cursor.execute(f'INSERT INTO "{table}" SELECT * FROM kept."{table}"')
        guards.install()
        with connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA kept CASCADE")


BACKUPS: dict[str, Callable[..., Any]] = {"sqlite": SqliteBackup, "postgresql": PostgresqlBackup}


@pytest.fixture
def beside(cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log whose heads are signed and kept beside the database."""
    data_of_its_own(monkeypatch, tmp_path)
    log_keys.make(tmp_path / "key")
    monkeypatch.setattr(settings, "CAVRA_LEDGER_KEYS", [f"file:{tmp_path / 'key'}"])
    log_keys.introduce(by=None, clock=system_clock)
    return tmp_path


# --- the journey ----------------------------------------------------------------------------------------------------


def deliveries_at(cast: Cast) -> int:
    """How often the receiver was given the audit package."""
    arrived = cast.world.receiver.arrived("/webhook")
    return sum(b"acknowledgement_audit_delivery" in one.body for one in arrived)


def page(cast: Cast, person: Any, address: str) -> str:
    browser = Client()
    browser.force_login(person)
    answer = browser.get(address)
    assert answer.status_code == 200
    return answer.content.decode()


def test_p25_a_restored_backup_sends_nothing_until_two_people_start_a_new_epoch(
    cast: Cast, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = cast.world
    for person in (world.analyst, world.second_analyst, world.approver, world.operator, world.auditor):
        cast.api(person)  # Tokens that the backup knows.
    case_id = cast.failed_delivery()["delivery"]["deliveries"][0]["case"]
    asked = cast.requested()
    cast.decide(asked)
    assert deliveries_at(cast) == 1
    checkpoints.make(clock=system_clock)
    backup = BACKUPS[vendor()](beside, monkeypatch)

    # The approved retry leaves, arrives, and is recorded: after the backup.
    (result,) = cast.run()["retry_results"]
    assert result["execution_record"]["execution_status"] == "delivered"
    assert deliveries_at(cast) == 2
    checkpoints.make(clock=system_clock)
    signed = checkpoints.outside_head()
    assert signed is not None
    backup.restore()

    # The approval stands in the restored rows, and nothing comes of it.
    assert Case.objects.get(case_id=case_id).state == "failed"
    assert ApprovalEntry.objects.get().state == "approved"
    refused = cast.operator.post(f"{A}/worker-run", {"dry_run": False}, expect=409)
    assert refused["code"] == "ledger_behind"
    refused = cast.analyst.post(A, {"delivery_provider": "webhook", "retries": 0}, expect=409)
    assert refused["code"] == "ledger_behind"
    ran("worker", "--once", monkeypatch=monkeypatch)
    assert cast.operator.call("GET", "/readyz").json["checks"]["ledger"] == "failed"
    address = f"/console/cases/{case_id}/"
    assert "This database is not the one that was worked with last." in page(cast, world.operator, address)
    assert cast.auditor.get(f"{A}/worker-runs")["total"] == 0
    assert deliveries_at(cast) == 2

    # Two people start a new log.
    signing_in = ("--password-stdin", "--by")
    ran(
        "new_epoch",
        "propose",
        "--reason",
        "restored the backup",
        *signing_in,
        world.administrator,
        monkeypatch=monkeypatch,
    )
    said = ran("new_epoch", "confirm", *signing_in, world.auditor, monkeypatch=monkeypatch)
    assert "Epoch 2 has begun" in said
    assert "Its first head is signed" in said
    genesis = records.load(Record.objects.get(kind="ledger-epoch-genesis").body or b"")["payload"]
    assert (genesis["old_origin"], genesis["known_size"], genesis["known_root"]) == (
        signed.origin,
        signed.size,
        signed.root.hex(),
    )
    assert list(verification.verify()) == []

    # Approvals of the old epoch are void; the case says that an attempt may have been made.
    (entry,) = ApprovalEntry.objects.all()
    assert entry.state == "manifest_changed"
    assert cast.run()["retry_results"] == []
    assert "An attempt may have been made between" in page(cast, world.approver, address)
    history = cast.auditor.get(
        f"/runtime/go-pilot/rollback-drill-notifications?include=all&case={case_id}&limit=500"
    )
    kinds = {item["metadata_kind"] for item in history["items"]}
    assert "ledger-epoch-effects" in kinds
    assert deliveries_at(cast) == 2

    # A new request needs approval again, and its approver reads what they do.
    again = cast.requested()
    assert "Approving sends again, knowingly." in page(cast, world.approver, address)
    cast.decide(again)
    manifest = records.load(ApprovalEntry.objects.latest("pk").manifest)
    assert (manifest["epoch"], [one["epoch"] for one in manifest["possible"]]) == (2, [2])
    (result,) = cast.run()["retry_results"]
    assert result["execution_record"]["execution_status"] == "delivered"
    assert deliveries_at(cast) == 3
    # The receiver can tell that it is the same: the bytes have the key they had.
    keys = [one.headers.get("idempotency-key") for one in world.receiver.arrived("/webhook")]
    assert keys[-1] == keys[-2]
    checkpoints.make(clock=system_clock)
    assert str(checkpoints.outside_head()).count("epoch-2") == 1
    assert LedgerHead.objects.get().epoch == 2
    assert list(verification.verify()) == []
