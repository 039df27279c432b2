"""Heads of the log that were kept elsewhere, held against what is stored now, and what that shows (P13)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evidence.domain import checkpoints, notes
from evidence.domain.anchors import Rated
from evidence.domain.notes import Head
from evidence.errors import InvalidInput
from evidence.models import LedgerHead

SIGNATURE = "— "
EXTENDS = "extends"


@dataclass(frozen=True)
class HeldHead:
    """One head and what it says about this database.

    ``verdict`` is that of ``checkpoints.hold_against``; ``signed`` names the keys known here that signed it,
    ``anchored`` the anchors of it that are on record. ``kept`` says where it was found.
    """

    head: Head
    verdict: str
    sentence: str
    kept: str
    signed: tuple[str, ...] = ()
    anchored: tuple[Rated, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the stored log begins with what this head was made over."""
        return self.verdict == EXTENDS

    @property
    def worth(self) -> int:
        """What its worthiest anchor is worth, see ``Rated``; 0 when none is on record."""
        return max((one.worth for one in self.anchored), default=0)

    def __str__(self) -> str:
        signed = (
            f"signed by {', '.join(self.signed)}"
            if self.signed
            else "signed by no key that this database knows"
        )
        lines = [
            f"head of {self.head.origin} at size {self.head.size} ({self.kept}, {signed}): {self.sentence}"
        ]
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

    def as_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {
            "origin": self.head.origin,
            "size": self.head.size,
            "root": self.head.root.hex(),
            "verdict": self.verdict,
            "sentence": self.sentence,
            "kept": self.kept,
            "signed_by": list(self.signed),
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


def hold_against(note: str, *, kept: str = "as given") -> HeldHead:
    """Hold a head that somebody kept against the stored tree.

    One that is not signed, or by keys this database does not know, is held by what it says: whoever kept it
    knows where it is from. Raises ``InvalidInput`` when it is no head, or a signature does not fit it.
    """
    try:
        held = checkpoints.hold_against(note)
    except InvalidInput as error:
        bare = SIGNATURE not in note
        if not bare and error.code != "unknown_key":
            raise
        head = notes.parse_checkpoint(note if bare else notes.parse(note)[0])
        return HeldHead(head, *checkpoints.verdict(head), kept)
    signed = tuple(f"{key.name} {key.key_id.hex()}" for key in held.signed_by)
    return HeldHead(held.head, held.verdict, held.sentence, kept, signed, held.anchored)


def beside() -> list[HeldHead]:
    """The head in the file beside the database, if there is one and it is of this log."""
    try:
        note = checkpoints.outside_path().read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [hold_against(note, kept="beside the database")]


def not_shown(held: Sequence[HeldHead]) -> list[str]:
    """What a verification that held the log against these heads cannot show, in sentences."""
    good = [one for one in held if one.holds]
    never = "Nothing can be said of what was never recorded."
    if not good:
        return [
            "No head from outside was held against this: a database that was rewritten as a whole, records, tree and "
            "rows alike, or set back to an earlier state of itself, verifies just the same. "
            "Hold it against heads that were kept elsewhere (--against).",
            never,
        ]
    size = LedgerHead.objects.values_list("size", flat=True).first() or 0
    newest = max(one.head.size for one in good)
    said = []
    if newest < size:
        said.append(
            f"Entries {newest} to {size - 1} came after the newest of these heads: that they were rewritten, or "
            "others cut off behind them, would not show."
        )
    if not any(one.worth for one in good):
        said.append(
            "None of these heads is on record as kept by others: whoever runs the database and reached that place as "
            "well could have rewritten everything."
        )
    return [*said, never]
