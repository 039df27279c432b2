"""Steps of a recovery's playbook: which are done, by whom, and the verb that ticks one (CONSOLE, Recovery)."""

from dataclasses import dataclass, replace
from datetime import datetime

from django.db import transaction

from evidence.domain import clock as clocks
from evidence.domain import ledger, policies, records
from evidence.domain import text as texts
from evidence.domain.clock import Clock
from evidence.errors import Conflict, NotFound, StaleState
from evidence.models import Connector, Person
from recovery.documents import PLAYBOOK, PLAYBOOK_STEP
from recovery.domain import fulfilment, playbooks
from recovery.models import Playbook, Recovery, StepTick
from recovery.permissions import Permission

MAX_NOTE = 300

# What is to be noted when a step is ticked by hand.
EXPECTED = {
    "check_owner": "Expects: who was asked, and whether maintenance is announced.",
    "check_name": "Expects: what the host name resolves to from here, or why it does not.",
    "check_network": "Expects: where the path ends, or the change that opened it.",
    "check_allow_list": "Expects: the change or ticket reference of the allow-list.",
    "check_certificate": "Expects: the certificate's issuer and the day it expires.",
    "check_configuration": "Expects: which administrator looked, and what was changed.",
    "set_credential": "Expects: who set the secret, and when. Never the secret.",
    "rotate_credential": "Expects: the reference of the rotation. Never the secret.",
    "check_endpoint": "Expects: who confirmed the address, or the change that moved it.",
    "check_content": "Expects: what was refused, and which side has to change.",
    "check_receiver": "Expects: what the receiver's own page or team says.",
    "check_arrival": "Expects: whether the content was found there, and under which id.",
    "wait": "Expects: how long the receiver asked for.",
    "enable": "Expects: which administrator enabled it.",
    "reference": "Expects: the incident or change reference.",
}
# For a step that only older documents list.
EXPECTED_ANYWAY = "Expects: what was done, or a reference."


@dataclass(frozen=True)
class Step:
    """One step of a recovery's newest playbook.

    ``evidence`` says in one sentence what shows it. ``automatic`` ones tick themselves. The last five say who
    did it, when, with which note, and by which record (a tick, a run or a vote); empty while it is not done.
    """

    key: str
    text: str
    evidence: str
    automatic: bool
    done: bool = False
    done_by: str = ""
    done_at: datetime | None = None
    note: str = ""
    tick_record_id: str = ""


def steps_of(recovery: Recovery, at: datetime) -> list[Step]:
    """The steps that a recovery's newest playbook lists, as known at ``at``; none before the first playbook."""
    playbook = playbooks.newest_playbook(recovery)
    if playbook is None:
        return []
    shown = fulfilment.shown(recovery, at)
    return [
        _step(key, text, shown.get(key)) for key, text in playbooks.listed_steps(playbook, recovery).items()
    ]


def listed_step(recovery: Recovery, step_key: str) -> tuple[Playbook, str]:
    """The newest playbook and its text of a step; ``NotFound`` when there is no playbook or no such step in it."""
    playbook = playbooks.newest_playbook(recovery)
    if playbook is None:
        raise NotFound(
            f"There is no playbook yet for recovery {recovery.epoch} of {recovery.connector.key}.",
            code="playbook_not_found",
        )
    text = playbooks.listed_steps(playbook, recovery).get(step_key)
    if text is None:
        raise NotFound(
            f"The newest playbook of {recovery.connector.key} lists no such step.", code="step_not_found"
        )
    return playbook, text


def tick(
    recovery: Recovery, step_key: str, *, done: bool, note: str, by: Person, clock: Clock
) -> records.Draft:
    """Record that somebody did a step of the recovery's newest playbook, or take that back.

    Raises ``InvalidInput`` for a note that is no clean line, ``NotFound`` for a step that the newest playbook
    does not list, ``Conflict`` ``recovery_finished`` or ``step_ticks_itself``, and ``StaleState`` naming who
    said so before.
    """
    policies.require_role(by, Permission.PLAN_RECOVERY)
    note = texts.clean(note, field="note", limit=MAX_NOTE)
    with transaction.atomic():
        # Like a playbook and a closure, the connector first: a playbook written now has this tick or comes before.
        Connector.objects.select_for_update(no_key=True).get(pk=recovery.connector_id)
        recovery = (
            Recovery.objects.select_for_update(no_key=True, of=("self",))
            .select_related("connector")
            .get(pk=recovery.pk)
        )
        at = clocks.read(clock)
        playbook, text = listed_step(recovery, step_key)
        _require_tickable(recovery, step_key)
        _require_change(fulfilment.newest_ticks(recovery, at).get(step_key), done)
        draft = records.draft(
            PLAYBOOK_STEP,
            records.mint_id(PLAYBOOK_STEP),
            {
                "playbook_id": playbook.playbook_id,
                "playbook_hash": playbook.record_hash,
                "provider": recovery.connector.key,
                "recovery_epoch": recovery.epoch,
                "step_key": step_key,
                "text": text,
                "done": done,
                "done_by": by.username,
                "done_at": records.timestamp(at),
                "note": note,
            },
            at=at,
            by=by,
            cases=[case.case_id for case in playbooks.listed_cases(recovery)][: records.MAX_CASES_PER_RECORD],
            references=[records.Reference(PLAYBOOK.name, playbook.playbook_id, playbook.record_hash)],
        )
        StepTick.objects.create(
            tick_id=draft.record_id,
            recovery=recovery,
            step_key=step_key,
            done=done,
            note=note,
            ticked_by=by,
            ticked_at=at,
            record_hash=draft.digest,
        )
        ledger.append([draft])
    return draft


def _require_tickable(recovery: Recovery, step_key: str) -> None:
    if recovery.state in playbooks.FINISHED:
        raise Conflict(
            f"Not recorded: recovery {recovery.epoch} of {recovery.connector.key} is {recovery.state} and its "
            "steps stay as they are. New trouble starts a new one.",
            code="recovery_finished",
        )
    if fact := fulfilment.AUTOMATIC.get(step_key):
        raise Conflict(f"Not recorded: this step ticks itself. {fact.evidence}", code="step_ticks_itself")


def _require_change(newest: StepTick | None, done: bool) -> None:
    """Nobody repeats what the newest word on a step says already."""
    if (newest is not None and newest.done) is not done:
        return
    if newest is None:
        raise StaleState("Not taken back: nobody has ticked this step.")
    said = "ticked this step" if newest.done else "took this step back"
    raise StaleState(
        f"Not recorded: {newest.ticked_by.username} {said} at {texts.moment(newest.ticked_at)}, before you."
    )


def _step(key: str, text: str, shown: fulfilment.Shown | None) -> Step:
    fact = fulfilment.AUTOMATIC.get(key)
    step = Step(
        key, text, fact.evidence if fact else EXPECTED.get(key, EXPECTED_ANYWAY), automatic=fact is not None
    )
    if shown is None:
        return step
    return replace(
        step,
        done=True,
        done_by=shown.by,
        done_at=shown.at,
        note=shown.note,
        tick_record_id=shown.record_id,
    )
