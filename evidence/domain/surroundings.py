"""What every page says about the service itself: size of the log, last verification, worker, pauses (P11, P17).

Read in one query, and another one while something is paused; nothing here looks into the database's catalog.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db.models import Exists, Subquery

from evidence.domain import heartbeats, live
from evidence.domain.clock import how_far_behind
from evidence.enums import EpochState, TaskState
from evidence.models import EpochProposal, Heartbeat, LedgerHead, PauseSwitch, SigningRefusal, Verification

# A result that is older says too little about today.
STALE_AFTER = timedelta(hours=48)

# Columns of a pass in the order of ``Checked``.
_CHECKED = ("finished_at", "size", "differences", "first_index", "first_difference")

LEDGER = "console:ledger"
CONNECTORS = "console:connectors"


@dataclass(frozen=True)
class Checked:
    """What the newest finished pass over the log found, among ``size`` entries."""

    at: datetime
    size: int
    differences: int
    first_index: int | None
    first_difference: str


@dataclass(frozen=True)
class Pause:
    """Live sending stopped: of one connector, or of all when ``scope`` is ``*``."""

    scope: str
    reason: str
    by: str
    at: datetime


@dataclass(frozen=True)
class Banner:
    """One thing that everybody has to know: its tone (``bad`` or ``warn``), the fact, the way out.

    ``view`` names the page that says more; empty for none.
    """

    tone: str
    fact: str
    then: str
    view: str = ""


@dataclass(frozen=True)
class Surroundings:
    """The service as it was at ``at``. ``guards`` says what is wrong with them, as far as anybody looked."""

    at: datetime
    size: int
    checked: Checked | None
    worker_at: datetime | None
    guards: str
    pauses: tuple[Pause, ...]
    newest_at: datetime | None = None
    # Why no head of the log is signed, as far as that is for this page to say; empty when nothing is wrong.
    unsigned: str = ""
    # Why nothing live is done with this database at all (P25).
    against_log: tuple[str, ...] = ()
    # Who proposed a new epoch that nobody confirmed yet.
    epoch_by: str = ""

    @property
    def behind(self) -> timedelta:
        """By how much this machine's clock is too far behind the log; nothing when it is not (P6)."""
        return how_far_behind(self.at, self.newest_at) if self.newest_at else timedelta()

    @property
    def worker_alive(self) -> bool:
        """Whether a worker was heard of lately."""
        return self.worker_at is not None and self.worker_at >= self.at - heartbeats.SILENT_AFTER

    @property
    def verified(self) -> bool:
        """Whether the newest pass is recent and found nothing."""
        checked = self.checked
        return bool(checked and not checked.differences and checked.at >= self.at - STALE_AFTER)

    @property
    def banners(self) -> list[Banner]:
        """What stands above every page, the worst first; empty when all is well."""
        return sorted(_banners(self), key=lambda banner: banner.tone != "bad")


def look(at: datetime) -> Surroundings:
    """The service at ``at``: one query, and another one while something is paused."""
    finished = Verification.objects.filter(state=TaskState.FINISHED).order_by("-finished_at", "-pk")
    beats = Heartbeat.objects.order_by("-at")
    row = (
        LedgerHead.objects.annotate(
            **{f"checked_{name}": Subquery(finished.values(name)[:1]) for name in _CHECKED},
            worker_at=Subquery(beats.values("at")[:1]),
            worker_note=Subquery(beats.values("note")[:1]),
            paused=Exists(PauseSwitch.objects.all()),
            epoch_by=Subquery(
                EpochProposal.objects.filter(state=EpochState.PROPOSED).values("proposed_through__username")[
                    :1
                ]
            ),
            unsigned=Subquery(SigningRefusal.objects.values("detail")[:1]),
        )
        .values(
            "unsigned",
            "epoch_by",
            "origin",
            "size",
            "peaks",
            "closed_to",
            "newest_at",
            "worker_at",
            "worker_note",
            "paused",
            *(f"checked_{name}" for name in _CHECKED),
        )
        .first()
    ) or {}
    switches = PauseSwitch.objects.order_by("scope").values_list(
        "scope", "reason", "paused_by__username", "paused_at"
    )
    checked = None
    if row.get("checked_finished_at"):
        when, *found = (row[f"checked_{name}"] for name in _CHECKED)
        checked = Checked(when, *found)
    state = live.LogState(row["origin"], row["size"], bytes(row["peaks"]), row["closed_to"]) if row else None
    return Surroundings(
        at=at,
        size=row.get("size", 0),
        checked=checked,
        worker_at=row.get("worker_at"),
        guards=_guards(row.get("worker_at"), row.get("worker_note") or "", checked),
        pauses=tuple(Pause(*switch) for switch in switches) if row.get("paused") else (),
        newest_at=row.get("newest_at"),
        unsigned=row.get("unsigned") or "",
        epoch_by=row.get("epoch_by") or "",
        against_log=tuple(sentence for _, sentence in live.reasons_against_log(state)),
    )


def _guards(worker_at: datetime | None, note: str, checked: Checked | None) -> str:
    """What the newer of worker and verification says about the guards; empty when they stand."""
    said = note
    if checked and (worker_at is None or checked.at > worker_at):
        said = checked.first_difference
    return said.rpartition(": ")[2].rpartition("found ")[2] if said.startswith(heartbeats.GUARDS) else ""


def _banners(around: Surroundings) -> Iterator[Banner]:
    for sentence in around.against_log:
        yield Banner("bad", sentence, "Nothing is sent; everything can be read.", LEDGER)
    if around.epoch_by:
        yield Banner(
            "warn",
            f"{around.epoch_by} proposed a new epoch of the log.",
            "Another administrator or auditor reads and confirms it: manage.py new_epoch show, then confirm.",
            LEDGER,
        )
    for pause in around.pauses:
        everything = pause.scope == PauseSwitch.ALL
        whom = "all connectors" if everything else pause.scope
        yield Banner(
            "bad" if everything else "warn",
            f"Live sending to {whom} is paused since {_moment(pause.at, around.at)} by {pause.by}: {pause.reason}",
            "Planning and approving go on; nothing is sent until an administrator resumes it.",
            CONNECTORS,
        )
    if around.behind:
        yield Banner(
            "bad",
            f"This machine's clock is {round(around.behind.total_seconds()):,} s behind the newest entry of the log.",
            "Nothing is sent until it is right. Have the time service of this machine looked at.",
        )
    if not around.worker_alive:
        since = (
            f"has not run since {_moment(around.worker_at, around.at)}" if around.worker_at else "never ran"
        )
        yield Banner(
            "bad",
            f"The worker {since}.",
            "What was left to it waits: runs, messages, what is due to run out. Have manage.py worker started.",
        )
    if around.guards:
        yield Banner(
            "bad",
            f"The database does not refuse what it should: {around.guards}.",
            "Run manage.py migrate, which puts the guards back; then verify the ledger.",
            LEDGER,
        )
    if around.unsigned:
        yield Banner(
            "bad",
            f"No head of the ledger is signed any more. {around.unsigned}",
            "Change nothing in the database, keep its backups, and verify the ledger.",
            LEDGER,
        )
    yield from _ledger(around)


def _ledger(around: Surroundings) -> Iterator[Banner]:
    checked = around.checked
    if checked is None:
        yield Banner(
            "warn",
            "The ledger was never verified.",
            "Nobody has held the entries against the stored bytes yet. Verify it now.",
            LEDGER,
        )
    elif checked.differences:
        where = "" if checked.first_index is None else f" at entry {checked.first_index:,}"
        number = "1 difference" if checked.differences == 1 else f"{checked.differences:,} differences"
        yield Banner(
            "bad",
            f"The ledger is not as it was sealed: {number}, the first{where}, "
            f"found {_moment(checked.at, around.at)}.",
            "Change nothing in the database, keep its backups, and show an auditor the ledger page.",
            LEDGER,
        )
    elif not around.verified:
        yield Banner(
            "warn",
            f"The ledger was last verified {_moment(checked.at, around.at)}.",
            "What was written since is not held against the stored bytes. Verify it now.",
            LEDGER,
        )


def _moment(moment: datetime, now: datetime) -> str:
    """A time with its zone, and with its day unless that is today."""
    moment, now = moment.astimezone(UTC), now.astimezone(UTC)
    day = "" if moment.date() == now.date() else f"{moment.day} {moment:%B %Y} "
    return f"{day}{moment:%H:%M:%S} UTC"
