"""Asking connectors: by the worker on its own, by a person at once, and before an approval is used up (P3, W29).

The network is used by the sender, as for content; answers are written in the calling thread.
"""

import logging
import queue
import secrets
import time
from collections import Counter
from collections.abc import Callable

from django.db import DatabaseError

from evidence.connectors import asking, sender
from evidence.connectors.credentials import Misconfigured
from evidence.connectors.specs import Receipt, SendSpec
from evidence.domain import attempts, live, policies, sending
from evidence.domain import clock as clocks
from evidence.domain.clock import Clock
from evidence.enums import Answer, CaseState
from evidence.errors import Conflict, DomainError
from evidence.models import Case, Connector, Person
from recovery.domain import inquiries
from recovery.domain.inquiries import Heard, Question
from recovery.execution import claims
from recovery.execution.selection import applied
from recovery.models import ApprovalEntry, WorkerRun
from recovery.permissions import Permission

logger = logging.getLogger(__name__)

# What a person waits for at most: for a free slot, and for question and answer.
WAIT_S, ANSWER_S = 2.0, 8.0
# Under way at once by the worker, for one connector and in all.
PER_CONNECTOR, AT_ONCE = 4, 16
# A connector whose answer was none is left alone for so long, or as it said with Retry-After: a refused credential
# that is tried on and on locks accounts.
QUIET_S = 60.0


def ask_now(case: Case, *, by: Person, clock: Clock, claimed_actor: str = "") -> Heard:
    """Ask the case's connector and write what it says; ten seconds at most.

    Raises ``Conflict`` with a code of ``inquiries.reasons_against_inquiry`` when it is not asked.
    """
    policies.require_role(by, Permission.ATTEST)
    if refusals := inquiries.reasons_against_inquiry(case, clock=clock):
        code, sentence = refusals[0]
        raise Conflict(f"Not asked: {sentence}", code=code, case_state=case.state)
    question = inquiries.question_about(case)
    token = secrets.token_hex(16)
    order = _order(question, token)
    receipt = order if isinstance(order, Receipt) else _answer(order)
    return attempts.written(
        lambda: inquiries.hear(question, receipt, by=by, clock=clock, claimed_actor=claimed_actor)
    )


def _answer(order: SendSpec) -> Receipt:
    (receipt,) = sender.shared().send_all([order], deadline_s=WAIT_S)
    return receipt


def _order(question: Question, token: str, wait_s: float = WAIT_S) -> SendSpec | Receipt:
    """The order that asks it; the receipt at once when the connector cannot be used as it is configured."""
    settings = sending.settings_of(question.connector)
    timeout_s = min(settings.timeout_s, ANSWER_S)
    try:
        return asking.order(settings, question.case_id, token=token, timeout_s=timeout_s, wait_s=wait_s)
    except Misconfigured as error:
        return sending.misconfigured(token, question.connector, error)


class Asker:
    """The questions of one worker: some are under way while it does other things (P17)."""

    def __init__(self) -> None:
        self._under_way: dict[str, Question] = {}
        self._answers: queue.SimpleQueue[Receipt] = queue.SimpleQueue()
        # By connector: until when (``time.monotonic()``) it is left alone.
        self._quiet: dict[str, float] = {}

    def step(self, *, clock: Clock, wait: bool = False) -> int:
        """Write what was answered, ask what is due. Returns of how many; ``wait`` stays until all have answered."""
        heard = self._hear(clock=clock)
        asked = self._ask(clock=clock)
        if wait and self._under_way:
            heard += self._hear(clock=clock, until=time.monotonic() + WAIT_S + ANSWER_S + 1)
        return heard + asked

    def _ask(self, *, clock: Clock) -> int:
        if not inquiries.ASKABLE or live.reasons_against_live(clock):
            return 0
        asked = 0
        scopes, at = policies.paused_scopes(), clocks.read(clock)
        busy = Counter(question.connector.key for question in self._under_way.values())
        for connector in Connector.objects.filter(product__in=inquiries.ASKABLE, enabled=True).order_by(
            "key"
        ):
            room = min(PER_CONNECTOR - busy[connector.key], AT_ONCE - len(self._under_way))
            quiet = time.monotonic() < self._quiet.get(connector.key, 0.0)
            if room <= 0 or quiet or policies.reasons_against_sending(connector, scopes, at):
                continue
            for question in inquiries.take_due(connector, clock=clock, limit=room):
                self._submit(question)
                asked += 1
        return asked

    def _submit(self, question: Question) -> None:
        token = secrets.token_hex(16)
        self._under_way[token] = question
        order = _order(question, token)
        if isinstance(order, Receipt):
            self._answers.put(order)
        else:
            sender.shared().submit(order, self._answers)

    def _hear(self, *, clock: Clock, until: float = 0.0) -> int:
        """Write answers: those that are there, or all by ``until`` (``time.monotonic()``)."""
        heard = 0
        while self._under_way:
            left = until - time.monotonic()
            try:
                receipt = self._answers.get(timeout=left) if left > 0 else self._answers.get_nowait()
            except queue.Empty:
                break
            if receipt.failure_class is not None:
                left_alone = max(QUIET_S, float(receipt.retry_after_s or 0))
                self._quiet[receipt.connector] = time.monotonic() + left_alone
            _written(self._under_way.pop(receipt.token), receipt, clock=clock)
            heard += 1
        return heard


def _written(question: Question, receipt: Receipt, *, clock: Clock) -> Heard | None:
    """Write an answer; one that cannot be written is had again later."""
    try:
        return inquiries.hear(question, receipt, by=None, clock=clock)
    except (DatabaseError, DomainError) as error:
        logger.warning("what %s said of a case was not written: %s", receipt.connector, type(error).__name__)
        return None


class Gate:
    """Asks before an approval is used whether an earlier try of its case arrived (W29).

    The question goes before the claim: when the message is there, the case is settled and its request cancelled,
    nothing is claimed, and no second ticket is made. Told nothing, the claim goes on: that the earlier try may have
    arrived is what the approver was shown. Whatever the run's claims may send, it asks about.
    """

    def __init__(
        self, run: WorkerRun, submit: Callable[[SendSpec, "queue.SimpleQueue[Receipt]"], None]
    ) -> None:
        self._run, self._submit = run, submit
        self._answers: queue.SimpleQueue[Receipt] = queue.SimpleQueue()
        self._under_way: dict[str, tuple[int, Question]] = {}
        self._passed: set[int] = set()

    def holds(self, entry: ApprovalEntry, *, clock: Clock) -> bool:
        """Whether an entry has to wait for its answer; the first time it asks."""
        if entry.pk in self._passed:
            return False
        if any(pk == entry.pk for pk, _ in self._under_way.values()):
            return True
        question = self._question(entry, clock=clock)
        token = secrets.token_hex(16)
        order = _order(question, token, sending.QUEUE_S) if question else None
        if question is None or not isinstance(order, SendSpec):
            # A connector that cannot be used is the claim's to refuse.
            self._passed.add(entry.pk)
            return False
        self._under_way[token] = (entry.pk, question)
        self._submit(order, self._answers)
        return True

    def hear(self, *, clock: Clock) -> None:
        """Write what was answered since."""
        while self._under_way:
            try:
                receipt = self._answers.get_nowait()
            except queue.Empty:
                return
            pk, question = self._under_way.pop(receipt.token)
            written = _written(question, receipt, clock=clock)
            unasked = receipt.answer is Answer.NOT_SENT and receipt.failure_class is None
            # What is there and could not be written, and what found no free slot, is asked again.
            if not unasked and (written or not receipt.found):
                self._passed.add(pk)

    def _question(self, entry: ApprovalEntry, *, clock: Clock) -> Question | None:
        """What to ask before the entry is claimed; None when there is nothing to ask."""
        if entry.connector.product not in inquiries.ASKABLE:
            return None
        case = Case.objects.select_related("connector").get(pk=entry.case_id)
        if case.state != CaseState.FAILED or not inquiries.may_have_arrived(case):
            return None
        limits = applied(entry, self._run.request["policy"], case.last_outcome_at or case.created_at)
        if claims.reasons_against_sending(case.connector, limits, clocks.read(clock)):
            return None  # The claim says why.
        return inquiries.question_about(case)
