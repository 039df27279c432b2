"""The sender: one daemon thread with one event loop sends for a whole process and answers every order once.

Callers stay in their own threads: ``submit`` hands a ``SendSpec`` over, the ``Receipt`` comes back through a
queue. Content goes by POST only; nothing is sent again by itself once a byte left (P2). Each connector has its
own lane and its own connections, so a slow, broken or differently trusted one never touches another (P17, P19).
Nothing here logs an address, a header or a body.
"""

import asyncio
import atexit
import contextlib
import hashlib
import logging
import os
import queue
import re
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from evidence.connectors import transports
from evidence.connectors.failures import PROPERTIES, Refused, classify_exception, classify_status, describe
from evidence.connectors.products import PRODUCTS
from evidence.connectors.progress import Progress, Wire
from evidence.connectors.redaction import MIN_PIECE, redact, url_parts
from evidence.connectors.specs import Question, Receipt, SendSpec
from evidence.connectors.transports.http import MAX_ANSWER
from evidence.connectors.wire import spec_problem
from evidence.enums import Answer, Assurance, FailureClass

logger = logging.getLogger(__name__)

SLOTS = 64
MAX_EXCERPT = 1024
BACKOFF_S = (0.05, 0.1, 0.2, 0.4, 0.8)
STOP_S = 5.0
STOPPED = "the sender stopped before anything was sent"
# What we and the client put there ourselves; every other header's value is kept out of excerpts.
_PLAIN_HEADERS = frozenset(
    {"content-type", "idempotency-key", "user-agent", "webhook-id", "webhook-timestamp"}
)
_UNSTORABLE = re.compile(r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Outcomes = queue.SimpleQueue[Receipt]


@dataclass(slots=True, eq=False)
class _Job:
    """One order on its way: who waits for it and, while it is queued, the alarm of its ``not_after``."""

    spec: SendSpec
    outcomes: Outcomes
    progress: Progress = field(default_factory=Progress.begin)
    alarm: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Lane:
    """One connector's orders, in order of arrival. A dict, because it keeps order and forgets in one step."""

    connector: str
    waiting: dict[_Job, None] = field(default_factory=dict)
    running: int = 0


class Sender:
    """Sends the orders of any number of threads, at most ``slots`` at once and half of that for one connector.

    The thread starts with the first order. A sender belongs to the process that made it.
    """

    def __init__(self, *, slots: int = SLOTS) -> None:
        self.slots = max(2, slots)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        # Under the lock: orders without a receipt, how many of them per connector, and whether more may come.
        self._open: set[_Job] = set()
        self._held: Counter[str] = Counter()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # In the loop's thread only.
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()
        self._running = 0
        self._transports = transports.made()
        self._stopping = asyncio.Event()

    # --- any thread ---------------------------------------------------------------------------------------

    def submit(self, spec: SendSpec, outcomes: Outcomes) -> None:
        """Take an order: exactly one ``Receipt`` is put into ``outcomes``, whatever happens. Never waits."""
        job = _Job(spec, outcomes)
        if self._pid != os.getpid() or not self._take(job):
            outcomes.put(_not_sent(spec, STOPPED))

    def send_all(self, specs: Iterable[SendSpec], *, deadline_s: float) -> Iterator[Receipt]:
        """Submit at once; yield the receipts as they come.

        Nothing starts later than ``deadline_s`` seconds from now, so the last receipt comes at most one
        ``timeout_s`` after that.
        """
        latest = time.monotonic() + deadline_s
        outcomes: Outcomes = queue.SimpleQueue()
        count = 0
        for spec in specs:
            own = latest if spec.not_after is None else spec.not_after
            self.submit(replace(spec, not_after=min(latest, own)), outcomes)
            count += 1
        return (outcomes.get() for _ in range(count))

    def free_slots(self, connector: str, max_concurrency: int) -> int:
        """How many orders for this connector would start at once, were they submitted now."""
        with self._lock:
            own = self._limit(max_concurrency) - self._held[connector]
            return max(0, min(own, self.slots - len(self._open)))

    def stop(self) -> None:
        """End the thread: what runs is broken off, everything open gets its receipt, later orders are refused."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._stopped = True
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread is not None:
            self._thread.join(STOP_S)

    def _limit(self, max_concurrency: int) -> int:
        return max(1, min(max_concurrency, self.slots // 2))

    def _take(self, job: _Job) -> bool:
        """Hand a job to the loop, which closes under the same lock; False when there is none any more."""
        with self._lock:
            if self._stopped:
                return False
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=self._serve, args=(loop,), name="evidence-sender", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:  # the system gives no more threads
                    loop.close()
                    return False
                self._loop, self._thread = loop, thread
            self._open.add(job)
            self._held[job.spec.connector] += 1
            self._loop.call_soon_threadsafe(self._enqueue, job)
            return True

    def _answer(self, job: _Job, receipt: Receipt) -> None:
        """Hand out a job's only receipt. Its slot counts as free before the caller sees it."""
        with self._lock:
            self._open.remove(job)
            self._held[job.spec.connector] -= 1
            if not self._held[job.spec.connector]:
                del self._held[job.spec.connector]
        job.outcomes.put(receipt)

    # --- the loop's thread --------------------------------------------------------------------------------

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """The thread: run until ``stop``; on the way out, also an unexpected one, answer what is open."""
        # Name look-ups hang in threads: as many as slots, so that one connector's never hold up another's.
        loop.set_default_executor(ThreadPoolExecutor(self.slots, thread_name_prefix="evidence-sender-dns"))
        loop.set_exception_handler(_log_type_only)
        try:
            loop.run_until_complete(self._stopping.wait())
        finally:
            with self._lock:
                self._stopped = True
            try:
                loop.run_until_complete(self._wind_down())
            finally:
                with self._lock:
                    loop.close()
                    left = list(self._open)
                for job in left:
                    self._answer(job, _broken_off(job.spec, job.progress))

    async def _wind_down(self) -> None:
        """Break off what runs, so that it answers, and close every connection."""
        with self._lock:
            tasks = [job.task for job in self._open if job.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for transport in self._transports.values():
            await transport.close()
        await asyncio.sleep(0)  # transports close in the loop's next round

    def _enqueue(self, job: _Job) -> None:
        lane = self._lanes.setdefault(job.spec.connector, _Lane(job.spec.connector))
        lane.waiting[job] = None
        if job.spec.not_after is not None:
            # The loop's clock is time.monotonic().
            job.alarm = asyncio.get_running_loop().call_at(job.spec.not_after, self._expire, lane, job)
        self._dispatch()

    def _expire(self, lane: _Lane, job: _Job) -> None:
        lane.waiting.pop(job, None)
        self._retire(lane)
        self._answer(job, _not_sent(job.spec, "no slot was free in time"))

    def _retire(self, lane: _Lane) -> None:
        if not lane.running and not lane.waiting:
            del self._lanes[lane.connector]

    def _dispatch(self) -> None:
        """Start what may start. Lanes take turns: a long queue of one connector does not hold up another."""
        while self._running < self.slots and not self._stopped:
            lane = next((lane for lane in self._lanes.values() if self._may_start(lane)), None)
            if lane is None:
                return
            self._lanes.move_to_end(lane.connector)
            job = next(iter(lane.waiting))
            del lane.waiting[job]
            if job.alarm is not None:
                job.alarm.cancel()
            if job.spec.not_after is not None and time.monotonic() >= job.spec.not_after:
                self._expire(lane, job)
                continue
            lane.running += 1
            self._running += 1
            job.task = asyncio.get_running_loop().create_task(self._run(lane, job))

    def _may_start(self, lane: _Lane) -> bool:
        job = next(iter(lane.waiting), None)
        return job is not None and lane.running < self._limit(job.spec.max_concurrency)

    async def _run(self, lane: _Lane, job: _Job) -> None:
        try:
            job.progress = Progress.begin()
            self._answer(job, await self._send(job.spec, job.progress))
        finally:
            lane.running -= 1
            self._running -= 1
            self._retire(lane)
            self._dispatch()

    async def _send(self, spec: SendSpec, progress: Progress) -> Receipt:
        """Try, and say what came of it. Every way out is a receipt."""
        try:
            if problem := spec_problem(spec):
                error = f"{describe(FailureClass.MISCONFIGURED)}: {problem}"
                return _receipt(spec, progress, FailureClass.MISCONFIGURED, error)
            async with asyncio.timeout(spec.timeout_s):
                await self._try(spec, progress)
            if spec.question is not None:
                return _answered(spec, spec.question, progress)
            verdict = await self._verdict(spec, progress)
        except asyncio.CancelledError:
            return _broken_off(spec, progress)
        except Exception as exc:  # noqa: BLE001 - a receipt is owed for any failure, foreseen or not
            failure = _failure(progress, exc)
            return _receipt(spec, progress, failure, _words(spec, progress, failure, exc))
        if isinstance(verdict, FailureClass):
            return _receipt(spec, progress, verdict, _words(spec, progress, verdict))
        return _receipt(spec, progress, verdict, "")

    async def _verdict(self, spec: SendSpec, progress: Progress) -> Assurance | FailureClass:
        """What the answer stands for; a product that can be asked for more is asked in the time that is left."""
        adapter = PRODUCTS[spec.product]
        status, body = progress.status or 0, bytes(progress.body)
        verdict = adapter.recognise(status, body)
        if isinstance(verdict, FailureClass) or adapter.confirm is None:
            return verdict
        try:
            async with asyncio.timeout(max(0.0, progress.started + spec.timeout_s - time.monotonic())):
                fetch = self._transports[adapter.transport].fetcher(spec)
                return await adapter.confirm(spec, status, body, fetch) or verdict
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - what it earned before stays earned
            return verdict

    async def _try(self, spec: SendSpec, progress: Progress) -> None:
        """POST, again only while no byte has left, the failure may pass by itself and time remains."""
        end = progress.started + spec.timeout_s
        while True:
            progress.tries += 1
            progress.resolving = False
            progress.wire = Wire()
            try:
                return await self._transports[PRODUCTS[spec.product].transport].exchange(spec, progress)
            except (aiohttp.ClientError, OSError) as exc:
                pause = BACKOFF_S[min(progress.tries, len(BACKOFF_S)) - 1]
                final = progress.tries > spec.retries or time.monotonic() + pause >= end
                if final or progress.bytes_sent or not PROPERTIES[_failure(progress, exc)].retryable:
                    raise
            await asyncio.sleep(pause)


def _failure(progress: Progress, exc: BaseException) -> FailureClass:
    """Class of a failed try: a status that says no outranks what happened to the rest of the answer."""
    if isinstance(exc, Refused):
        return exc.failure_class
    if progress.status is not None and (failure := classify_status(progress.status)):
        return failure
    if progress.resolving and isinstance(exc, TimeoutError):
        return FailureClass.DNS
    if progress.authorizing and "asked" in progress.wire.times and isinstance(exc, TimeoutError):
        return FailureClass.RESPONSE_TIMEOUT  # of the token endpoint: it was reached, and said nothing
    failure = classify_exception(exc, bytes_left=progress.bytes_sent > 0)
    # The name has a refused address besides one that was tried in vain.
    blocked = failure is FailureClass.BLOCKED_ADDRESS
    return FailureClass.CONNECT if blocked and progress.wire.dialled else failure


def _words(
    spec: SendSpec, progress: Progress, failure: FailureClass, exc: BaseException | None = None
) -> str:
    return describe(
        failure,
        exc,
        status=progress.status,
        protocol=PRODUCTS[spec.product].transport.name,
        proxied=bool(spec.proxy_url),
        authorizing=progress.authorizing,
    )


def _broken_off(spec: SendSpec, progress: Progress) -> Receipt:
    """The receipt of what was open when the sender stopped."""
    if not progress.bytes_sent:
        return _receipt(spec, progress, None, STOPPED)
    failure = _failure(progress, asyncio.CancelledError())
    return _receipt(spec, progress, failure, "the sender stopped before the answer was complete")


def _not_sent(spec: SendSpec, why: str) -> Receipt:
    return _receipt(spec, Progress.begin(), None, why)


def _receipt(
    spec: SendSpec, progress: Progress, verdict: Assurance | FailureClass | None, error: str
) -> Receipt:
    failure = verdict if isinstance(verdict, FailureClass) else None
    answer = Answer.NO_ANSWER if progress.bytes_sent else Answer.NOT_SENT
    # SMTP says no before anything of the content left: then there was no answer to it.
    if progress.status is not None and progress.bytes_sent:
        answer = Answer.ANSWERED
    content = bool(progress.bytes_sent) and spec.question is None
    arrived = content and (failure is None or PROPERTIES[failure].receiver_may_have_it)
    duration_ms = round((time.monotonic() - progress.started) * 1000)
    return Receipt(
        token=spec.token,
        connector=spec.connector,
        answer=answer,
        assurance=verdict if isinstance(verdict, Assurance) else None,
        may_have_arrived=arrived,
        failure_class=failure,
        status_code=progress.status,
        error=redact(error, (value for _, value in spec.secrets)),
        tries=progress.tries,
        started_at=progress.started_at,
        # From the monotonic clock: a step of the wall clock cannot end a try before it began.
        completed_at=progress.started_at + timedelta(milliseconds=duration_ms),
        bytes_sent=progress.bytes_sent,
        sent_sha256=hashlib.sha256(spec.body).hexdigest(),
        answer_excerpt=_excerpt(spec, progress),
        answer_sha256=hashlib.sha256(progress.body).hexdigest() if progress.status is not None else "",
        retry_after_s=progress.retry_after_s,
        duration_ms=duration_ms,
        header_names=tuple(sorted({name.lower() for name, _ in (*spec.headers, *progress.late)})),
        diagnostics=progress.wire.diagnostics(duration_ms) if progress.tries else None,
    )


def _answered(spec: SendSpec, question: Question, progress: Progress) -> Receipt:
    """The receipt of a question that was answered. Nothing of it is content: nothing arrived by it."""
    body = bytes(progress.body)
    said = question.answered(progress.status or 0, body)
    failure = said if isinstance(said, FailureClass) else None
    receipt = _receipt(spec, progress, failure, describe(failure, status=progress.status) if failure else "")
    if failure is not None:
        return receipt
    return replace(receipt, found=bool(said), reference=question.reference(body) if said else "")


def _excerpt(spec: SendSpec, progress: Progress) -> str:
    """The beginning of an answer as storable text, without what we sent along or where we sent it."""
    if not progress.body:
        return ""
    hidden = [value for _, value in spec.secrets]
    for url in (spec.url, spec.proxy_url):
        hidden += url_parts(url)
        if "." in (host := urlsplit(url).hostname or ""):
            hidden.append(host)  # a single word could be any word of the answer
    hidden += [value for name, value in spec.headers if name.lower() not in _PLAIN_HEADERS]
    # Whole, and each of several signatures (v1,… v1,…).
    late = [value for name, value in progress.late if name.lower() not in _PLAIN_HEADERS]
    late += [part for value in late for part in re.split(r"[ ,]", value) if len(part) >= MIN_PIECE]
    said = progress.body.decode("utf-8", "replace")
    text = redact(said, hidden, late, cut=len(progress.body) >= MAX_ANSWER)
    # UTF-16 has NUL between the letters of a secret.
    if "\0" in said and (hidden_so := redact(bare := said.replace("\0", ""), hidden, late)) != bare:
        text = hidden_so
    return _UNSTORABLE.sub("\ufffd", text)[:MAX_EXCERPT]


def _log_type_only(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the loop could not hand to anybody; messages and reprs of the client may hold addresses."""
    logger.warning("sender: %s", type(context.get("exception")).__name__)


_shared: Sender | None = None
_shared_lock = threading.Lock()
_parents: list[Sender | None] = []


def shared() -> Sender:
    """This process's sender. After a fork the child gets one of its own."""
    global _shared  # noqa: PLW0603 - one per process is the point
    with _shared_lock:
        if _shared is None or _shared._pid != os.getpid():
            _shared = Sender()
        return _shared


def _forget_parent() -> None:
    """In a forked child: the parent's thread is not here, and any thread may have held the lock."""
    global _shared, _shared_lock
    # Kept, not dropped: collecting its connections would take them out of the parent's epoll as well.
    _parents.append(_shared)
    _shared, _shared_lock = None, threading.Lock()


def _stop_shared() -> None:
    if _shared is not None:
        _shared.stop()


atexit.register(_stop_shared)


with contextlib.suppress(AttributeError):  # not on systems without fork
    os.register_at_fork(after_in_child=_forget_parent)
