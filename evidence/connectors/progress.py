"""How far one order got; a transport writes it, the receipt is made of it."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(slots=True)
class Progress:
    """How far one order got. Written by the try, read when the receipt is made.

    ``bytes_sent`` counts what was handed to a connection of the content and of what frames it; a transport
    counts right before it writes, so that no written byte goes unnoticed. ``status`` and ``body`` are the
    answer, ``late_names`` headers that were made at the last moment; ``dialled`` and ``resolving`` tell what a
    failure before that was.
    """

    started_at: datetime
    started: float
    tries: int = 0
    bytes_sent: int = 0
    dialled: bool = False
    resolving: bool = False
    status: int | None = None
    retry_after_s: int | None = None
    body: bytearray = field(default_factory=bytearray)
    late_names: tuple[str, ...] = ()

    @classmethod
    def begin(cls) -> "Progress":
        """One that starts now."""
        return cls(started_at=datetime.now(UTC), started=time.monotonic())
