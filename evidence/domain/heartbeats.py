"""Whether a worker is alive: it says so every few seconds, ``/readyz`` and the console ask."""

from datetime import timedelta

from evidence import guards
from evidence.domain.clock import Clock
from evidence.models import Heartbeat

# A worker that was silent for this long counts as gone.
SILENT_AFTER = timedelta(seconds=60)
# How a heartbeat, and a pass over the log, begin what they say about missing guards.
GUARDS = "guards: "
# Rows of workers that went long ago are removed by whoever beats next.
FORGOTTEN_AFTER = timedelta(days=1)


def beat(worker: str, *, clock: Clock) -> None:
    """Say that ``worker`` (host and process) is alive, and whether the database's guards stand."""
    at = clock()
    missing = guards.differences()
    note = f"{GUARDS}{missing[0]}" if missing else ""
    Heartbeat.objects.update_or_create(worker=worker, defaults={"at": at, "note": note[:200]})
    Heartbeat.objects.filter(at__lt=at - FORGOTTEN_AFTER).delete()


def alive(*, clock: Clock) -> bool:
    """Whether any worker was heard of lately."""
    return Heartbeat.objects.filter(at__gte=clock() - SILENT_AFTER).exists()
