"""``manage.py new_epoch``: after a restored backup the log goes on under a new name, by two people (P25)."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from evidence.domain import checkpoints, epochs, records
from evidence.domain.clock import system_clock
from evidence.errors import DomainError
from evidence.management.refusals import as_command_error
from evidence.management.signing_in import signed_in
from evidence.models import EpochProposal


class Command(BaseCommand):
    """``propose``, ``confirm``, ``withdraw`` or ``show``; each person signs in with their own password."""

    help = (
        "Start a new log after this database was restored: one person proposes it, another one confirms. Both hold "
        "the role administrator or auditor. Open approvals end, what was under way counts as unknown, and every "
        "unsettled case is marked: an attempt of it may have been made since the backup."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True)
        proposing = acts.add_parser("propose", help="say what is to happen, and why")
        proposing.add_argument(
            "--origin",
            default="",
            help="name of the new log (default: the old one's with the epoch's number)",
        )
        proposing.add_argument(
            "--known-head",
            type=Path,
            metavar="FILE",
            help="the newest signed head of the old log that anybody has (default: the one in CAVRA_DATA)",
        )
        proposing.add_argument(
            "--not-behind",
            action="store_true",
            help="the database was restored although no head outside shows it",
        )
        confirming = acts.add_parser("confirm", help="begin what another person proposed")
        withdrawing = acts.add_parser("withdraw", help="end a proposal")
        acts.add_parser("show", help="print the proposal that waits")
        for signed in (proposing, confirming, withdrawing):
            signed.add_argument("--by", required=True, metavar="NAME", help="who acts: a sign-in name")
            signed.add_argument(
                "--password-stdin", action="store_true", help="read the password from standard input"
            )
        for reasoned in (proposing, withdrawing):
            reasoned.add_argument("--reason", required=True, metavar="TEXT")
        for about in (confirming, withdrawing):
            about.add_argument("--proposal", default="", metavar="ID", help="default: the one that waits")

    def handle(self, *args: Any, **options: Any) -> None:
        with as_command_error():
            getattr(self, f"_{options['act']}")(options)

    def _propose(self, options: dict[str, Any]) -> None:
        by = signed_in(options["by"], from_stdin=options["password_stdin"])
        known = epochs.head_in(options["known_head"]) if options["known_head"] else None
        proposal = epochs.propose(
            reason=options["reason"],
            by=by,
            clock=system_clock,
            origin=options["origin"],
            known=known,
            although_not_behind=options["not_behind"],
        )
        self._say(proposal)

    def _confirm(self, options: dict[str, Any]) -> None:
        by = signed_in(options["by"], from_stdin=options["password_stdin"])
        record = epochs.confirm(_chosen(options["proposal"]), by=by, clock=system_clock)
        said = records.payload_of(record) or {}
        self.stdout.write(
            f"Epoch {said['epoch']} has begun: the log is {said['origin']} from entry {record.index:,} on "
            f"({record.record_id})."
        )
        self.stdout.write("Open approvals of the old epoch are void. Ask for approval again, case by case.")
        try:
            signed = checkpoints.make(clock=system_clock)
        except DomainError as error:
            self.stderr.write(f"Its first head is not signed yet: {error.detail}")
        else:
            what = (
                f"Its first head is signed at {signed.size:,} entries."
                if signed
                else "No key signs its heads here."
            )
            self.stdout.write(what)

    def _withdraw(self, options: dict[str, Any]) -> None:
        by = signed_in(options["by"], from_stdin=options["password_stdin"])
        proposal = _chosen(options["proposal"])
        epochs.withdraw(proposal, reason=options["reason"], by=by, clock=system_clock)
        self.stdout.write(f"{proposal.proposal_id} is withdrawn; nothing has changed.")

    def _show(self, options: dict[str, Any]) -> None:
        self._say(_chosen(""))

    def _say(self, proposal: EpochProposal) -> None:
        known = (
            f"{proposal.known_origin} at {proposal.known_size:,} entries, root {proposal.known_root}"
            if proposal.known_size
            else "none"
        )
        self.stdout.write(
            f"{proposal.proposal_id}: {proposal.proposed_through} proposes epoch {proposal.epoch}, {proposal.origin}.\n"
            f"  reason: {proposal.reason}\n"
            f"  last known head: {known}\n"
            f"  first lost entry: {proposal.first_lost_index:,}\n"
            "Nothing has changed yet. Another administrator or auditor runs: manage.py new_epoch confirm --by NAME"
        )


def _chosen(proposal_id: str) -> EpochProposal:
    return epochs.proposal_by_id(proposal_id) if proposal_id else epochs.waiting()
