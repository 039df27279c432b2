"""Heads of the log that were kept elsewhere, held against what is stored now, and what that shows (P13)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evidence.domain import anchors, checkpoints, log_keys, notes
from evidence.domain.anchors import Rated
from evidence.domain.log_keys import KnownKey
from evidence.domain.notes import Head
from evidence.enums import KeyState
from evidence.errors import InvalidInput
from evidence.models import LedgerHead

SIGNATURE = "— "
EXTENDS = "extends"
BESIDE = "beside the database"
_NONE = "No head from outside was held against this"


@dataclass(frozen=True)
class Held:
    """One head from outside and what it says about this database.

    ``verdict`` is ``extends`` (the stored log begins with what was signed), ``shorter`` (the head is larger
    than the log), ``differs`` (another tree of the same size), ``lost`` (the end of an epoch says that its last
    entries are lost) or ``other_log``. ``signed_by`` are the keys known here that signed it, ``anchored`` the
    anchors of this very head that are on record here. ``kept`` says where it was found.
    """

    head: Head
    verdict: str
    sentence: str
    kept: str
    signed_by: tuple[KnownKey, ...] = ()
    anchored: tuple[Rated, ...] = ()

    @property
    def trusted(self) -> bool:
        """False when revoked keys alone signed it. Without any known key it is worth what its keeper is worth."""
        return not self.signed_by or log_keys.any_trusted(self.signed_by)

    @property
    def holds(self) -> bool:
        """Whether it counts, and the stored log begins with what it was made over."""
        return self.verdict == EXTENDS and self.trusted

    @property
    def fails(self) -> bool:
        """Whether the log does not stand up to it. A revoked one that nobody gave only shows nothing."""
        return not self.holds and (self.verdict != EXTENDS or self.kept != BESIDE)

    @property
    def worth(self) -> int:
        """What its worthiest anchor is worth, see ``Rated``; 0 when none is on record."""
        return max((one.worth for one in self.anchored), default=0)

    def __str__(self) -> str:
        signed = ", ".join(self._signed()) or "no key that this database knows"
        lines = [
            f"head of {self.head.origin} at size {self.head.size} ({self.kept}, signed by {signed}): {self.sentence}"
        ]
        if not self.trusted:
            lines.append("  It counts no more: whoever has a key that was revoked signs any past with it.")
        lines += [
            f"  anchored by {one.anchor.place} ({one.anchor.means}) at size {one.anchor.size}: {one.sentence}"
            for one in self.anchored
        ]
        if not self.anchored:
            lines.append(
                "  No anchor of it is on record here: it is worth as much as the place it was kept in is out of reach "
                "of those who run this database."
            )
        return "\n".join(lines)

    def _signed(self) -> list[str]:
        """Name and id of each key, and what became of it unless it still signs."""
        return [
            f"{key.name} {key.key_id.hex()}" + (f" ({key.state})" if key.state != KeyState.ACTIVE else "")
            for key in self.signed_by
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {
            "origin": self.head.origin,
            "size": self.head.size,
            "root": self.head.root.hex(),
            "verdict": self.verdict,
            "sentence": self.sentence,
            "kept": self.kept,
            "signed_by": self._signed(),
            "trusted": self.trusted,
            "anchors": [
                {
                    "place": one.anchor.place,
                    "means": one.anchor.means,
                    "administered_by": one.anchor.administered_by,
                    "worth": one.worth,
                }
                for one in self.anchored
            ],
        }


def split(text: str) -> list[str]:
    """The heads in a file that holds one or several, signed notes or bare ones, an empty line between any two."""
    found: list[str] = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        lines = block.strip("\n")
        if lines.startswith(SIGNATURE) and found:
            found[-1] += f"\n{lines}\n"
        elif lines:
            found.append(f"{lines}\n")
    return found


def hold_against(note: str, *, kept: str = "as given") -> Held:
    """Hold a head that somebody kept against the stored tree.

    One that is not signed, or by keys this database does not know, is held by what it says: whoever kept it
    knows where it is from. Raises ``InvalidInput`` when it is no head, or a signature does not fit it.
    """
    head, signed_by = _opened(note)
    anchored = tuple(anchors.holding(head.origin, head.size, head.root))
    return Held(head, *checkpoints.verdict(head), kept, signed_by, anchored)


def _opened(note: str) -> tuple[Head, tuple[KnownKey, ...]]:
    """What a head says, and which of the keys known here signed it."""
    if SIGNATURE not in note:
        return notes.parse_checkpoint(note), ()
    try:
        opened = notes.opened(note, log_keys.verifiers())
    except InvalidInput as error:
        if error.code != "unknown_key":
            raise
        return notes.parse_checkpoint(notes.parse(note)[0]), ()
    return notes.parse_checkpoint(opened.text), opened.signed_by


def beside() -> list[Held]:
    """The head in the file beside the database, if there is one and it is of this log."""
    try:
        note = checkpoints.outside_path().read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [hold_against(note, kept=BESIDE)]


def span(first: int, last: int) -> str:
    """Entries by their numbers: ``entry 7`` or ``entries 7 to 9``."""
    return f"entry {first}" if first == last else f"entries {first} to {last}"


def not_shown(held: Sequence[Held]) -> list[str]:
    """What a verification that held the log against these heads cannot show, in sentences."""
    good = [one for one in held if one.holds]
    never = "Nothing can be said of what was never recorded."
    if not good:
        none = "None of the heads that were held against this counts" if held else _NONE
        return [
            f"{none}: a database that was rewritten as a whole, records, tree and "
            "rows alike, or set back to an earlier state of itself, verifies just the same. "
            "Hold it against heads that were kept elsewhere (--against).",
            never,
        ]
    size = LedgerHead.objects.values_list("size", flat=True).first() or 0
    newest = max(one.head.size for one in good)
    said = []
    if newest < size:
        said.append(
            f"{span(newest, size - 1).capitalize()} came after the newest of these heads: that they were rewritten, or "
            "others cut off behind them, would not show."
        )
    if not any(one.worth for one in good):
        said.append(
            "None of these heads is on record as kept by others: whoever runs the database and reached that place as "
            "well could have rewritten everything."
        )
    return [*said, never]
