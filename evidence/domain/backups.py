"""Backup and restore of a SQLite database, in one file each; PostgreSQL has ``pg_dump`` (docs/operating.md).

Both end with a verification and the head. What a restore sets back shows against the head that lies beside the
database; until two people start a new epoch, nothing live is done with it (P25).
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.db import DatabaseError, connection

from evidence.domain import checkpoints, databases, heartbeats, live, merkle, proofs, text, verification
from evidence.domain.clock import Clock
from evidence.domain.verification import Report
from evidence.errors import Conflict, DomainError, InvalidInput
from evidence.models import LedgerHead


@dataclass(frozen=True)
class Copied:
    """What a copy holds: its verification, and where what it replaced is kept (None: it replaced nothing).

    ``behind`` says why nothing live is done with it; ``unsigned`` why what was replaced could not be signed.
    """

    report: Report
    kept: Path | None = None
    behind: tuple[str, ...] = ()
    unsigned: str = ""


def back_up(target: Path) -> Copied:
    """Copy this database, as it is at one moment, into a new file, and verify the copy. Writers go on meanwhile.

    Raises ``Conflict``: ``not_sqlite``, or ``file_exists`` when something is there, which stays as it is.
    """
    _require_sqlite()
    with _new_file(target) as part:
        _copy(_own_file(), part)
        report = _read(part)[1]
    return Copied(report)


def restore(source: Path, *, clock: Clock, force: str = "") -> Copied:
    """Make this database what a backup holds; web servers and worker are to be stopped before.

    What it held is kept in a file beside it. ``force`` is the reason for losing entries that the backup does
    not have. Raises ``InvalidInput`` ``no_backup``, and ``Conflict``: ``not_sqlite``, ``worker_alive``,
    ``backup_differs`` when the backup does not verify, ``ledger_closed`` when this log went on in another
    database, ``target_newer`` or (it cannot be read) ``own_unreadable`` without a reason.
    """
    _require_sqlite()
    state, report = _read(source)
    if report.first is not None:
        raise Conflict(f"Not restored: the backup does not verify. {report.first}", code="backup_differs")
    force = text.clean(force, field="reason", limit=text.MAX_NOTES, lines=True)
    try:
        kept, unsigned = _given_up(source, state, clock=clock, force=force)
    except DatabaseError as error:
        if not force:
            raise Conflict(
                f"Not restored: this database cannot be read ({error}), so nobody knows what it holds that the backup "
                "does not. Stop worker and web servers, and say why that is to be lost (--force REASON).",
                code="own_unreadable",
            ) from error
        kept, unsigned = _moved_aside(clock, force), f"This database cannot be read ({error})."
    own = _own_file()
    connection.close()
    _copy(source, own)
    reasons = live.reasons_against_log(live.LogState.read())
    return Copied(verification.report(), kept, tuple(sentence for _, sentence in reasons), unsigned)


def _given_up(source: Path, backup: live.LogState, *, clock: Clock, force: str) -> tuple[Path | None, str]:
    """Have what is here kept before it is replaced: where, and why its last head is not signed, if it is not."""
    if not _is_ours():
        return None, ""
    live.require_open()
    if heartbeats.alive(clock=clock):
        raise Conflict(
            "Not restored: a worker was heard of in the last minute. Stop it and the web servers first.",
            code="worker_alive",
        )
    unsigned = ""
    if lost := _lost(source, backup):
        if not force:
            raise Conflict(
                f"Not restored: {lost} Say why that is to be lost (--force REASON).", code="target_newer"
            )
        unsigned = _sign_last(clock)
    return _set_aside(clock, force), unsigned


# --- files --------------------------------------------------------------------------------------------------------


def _require_sqlite() -> None:
    if connection.vendor != "sqlite":
        raise Conflict(
            "This is done with pg_dump and pg_restore on PostgreSQL; docs/operating.md says how.",
            code="not_sqlite",
        )


def _own_file() -> Path:
    return Path(str(connection.settings_dict["NAME"]))


@contextmanager
def _new_file(target: Path) -> Iterator[Path]:
    """A file to be filled, which becomes ``target`` when all went well: whole or not at all, and over nothing."""
    part = target.with_name(f"{target.name}.part")
    taken = Conflict(f"{target} is there already and stays as it is. Name another file.", code="file_exists")
    if target.exists():
        raise taken
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError as error:
        raise Conflict(
            f"{part} is there: another backup is under way, or was cut off.", code="file_exists"
        ) from error
    except OSError as error:
        raise InvalidInput(f"{target} cannot be written: {error.strerror}.", code="file") from error
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        try:
            os.link(part, target)
        except FileExistsError as error:
            raise taken from error
        folder = os.open(target.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    finally:
        part.unlink()


def _copy(source: Path, target: Path) -> None:
    """SQLite's own online copy: one consistent moment of ``source``, in one transaction over ``target``."""
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=20)) as old,
        closing(sqlite3.connect(target, timeout=20)) as new,
    ):
        old.backup(new)
        # One file that holds everything; whoever works with it has the log beside it again.
        new.execute("PRAGMA journal_mode=DELETE")


def _set_aside(clock: Clock, reason: str) -> Path:
    """Keep a copy of what is about to be replaced, and why."""
    kept = _kept_name(clock)
    with _new_file(kept) as part:
        _copy(_own_file(), part)
    _say_why(kept, reason)
    return kept


def _moved_aside(clock: Clock, reason: str) -> Path:
    """Keep the files of a database that cannot be read, as they are, and why."""
    connection.close()
    own, kept = _own_file(), _kept_name(clock)
    for suffix in ("", "-wal", "-shm", "-journal"):
        if (file := own.with_name(own.name + suffix)).exists():
            file.rename(kept.with_name(kept.name + suffix))
    _say_why(kept, reason)
    return kept


def _kept_name(clock: Clock) -> Path:
    own = _own_file()
    return own.with_name(f"{own.name}.before-restore-{clock():%Y%m%dT%H%M%S%f}")


def _say_why(kept: Path, reason: str) -> None:
    if reason:
        kept.with_name(f"{kept.name}.reason").write_text(f"{reason}\n", encoding="utf-8")


# --- what is lost -------------------------------------------------------------------------------------------------


def _is_ours() -> bool:
    """Whether there is a log here already."""
    return LedgerHead._meta.db_table in connection.introspection.table_names() and LedgerHead.objects.exists()


def _read(path: Path) -> tuple[live.LogState, Report]:
    """Head and verification of the database in a file; ``InvalidInput`` when it holds none of ours."""
    try:
        with databases.instead(databases.sqlite_file(path)):
            if not path.is_file() or not _is_ours():
                raise InvalidInput(f"{path} holds no database of this service.", code="no_backup")
            state = live.LogState.read()
            assert state is not None  # noqa: S101
            return state, verification.report()
    except DatabaseError as error:
        raise InvalidInput(
            f"{path} cannot be read as a database of this version: {error}. A backup of an older version is restored "
            "with that version and migrated then.",
            code="no_backup",
        ) from error


def _lost(source: Path, backup: live.LogState) -> str:
    """What this database holds that the backup does not; empty when the backup has it all."""
    own = live.LogState.read()
    if own is None or not own.size:
        return ""
    if own.size > backup.size:
        return f"this database has {own.size:,} entries, the backup {backup.size:,}."
    with databases.instead(databases.sqlite_file(source)):
        same = proofs.root_at(own.size) == merkle.root(merkle.split(own.peaks))
    return "" if same else "this database has entries that the backup does not have."


def _sign_last(clock: Clock) -> str:
    """Have the head of what is about to be lost lie outside, so that the loss shows; why not, if not."""
    try:
        checkpoints.make(clock=clock)
    except (DomainError, DatabaseError) as error:
        return str(error)
    head = checkpoints.latest()
    return "" if head else "No key signs its heads."
