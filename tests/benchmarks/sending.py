"""Many queued deliveries over connectors of which some fail and one is slow, beside a bare loop with the same bytes."""

import asyncio
import json
import queue
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import aiohttp

from evidence.connectors.sender import Sender
from evidence.connectors.specs import Receipt, SendSpec
from evidence.enums import Answer, Product
from tests.processes import closed_port
from tests.torture.nursery import ROOT

# Connectors by what is behind them: five receivers that are well, one that answers 503, one that is not there, one
# that is slow.
WELL = ("well-1", "well-2", "well-3", "well-4", "well-5")
CONNECTORS = (*WELL, "failing", "missing", "slow")
AT_ONCE = 8
TIMEOUT_S = 10.0
BODY = json.dumps({"evidence": "x" * 2_000}).encode()


@dataclass(frozen=True)
class Sent:
    """What came of it. Nothing is lost when ``lost``, ``unfounded`` and ``twice`` are 0.

    ``lost``: no receipt, or delivered by its receipt and not there. ``unfounded``: not sent by its receipt, and
    there all the same. ``twice``: arrived more than once. ``well`` of them went to receivers that are well, in
    ``well_s`` seconds while the others failed and dawdled, in ``bare_s`` by the bare loop, which had nobody else.
    """

    orders: int
    delivered: int
    failed: int
    lost: int
    unfounded: int
    twice: int
    well: int
    well_s: float
    all_s: float
    bare_s: float

    @property
    def sound(self) -> bool:
        """Whether every id is accounted for."""
        return not self.lost + self.unfounded + self.twice and self.delivered + self.failed == self.orders


def measure(orders: int) -> Sent:
    """Queue ``orders`` at once, evenly over the connectors; then send what the well ones got once more, bare."""
    each = orders // len(CONNECTORS)
    with _receiver() as url, closed_port() as closed:
        urls = {connector: f"{url}/{connector}" for connector in CONNECTORS} | {
            "missing": f"http://127.0.0.1:{closed}/"
        }
        specs = [_spec(urls[connector], connector, n) for n in range(each) for connector in CONNECTORS]
        receipts, well_s, all_s = _through_the_sender(specs)
        well = [spec for spec in specs if spec.connector in WELL]
        bare_s = asyncio.run(_bare([spec.url.replace("/well", "/bare") for spec in well]))
        with urllib.request.urlopen(f"{url}/arrived", timeout=60) as answer:
            arrived = {path: Counter(keys) for path, keys in json.load(answer).items()}
    there = Counter[str]()
    for path, keys in arrived.items():
        if not path.startswith("/bare"):
            there += keys
    lost = unfounded = 0
    for spec in specs:
        receipt = receipts.get(spec.token)
        lost += receipt is None or (receipt.delivered and not there[spec.token])
        unfounded += receipt is not None and receipt.answer is Answer.NOT_SENT and bool(there[spec.token])
    return Sent(
        orders=len(specs),
        delivered=sum(receipt.delivered for receipt in receipts.values()),
        failed=sum(receipt.failure_class is not None for receipt in receipts.values()),
        lost=lost,
        unfounded=unfounded,
        twice=sum(count > 1 for count in there.values()),
        well=len(well),
        well_s=well_s,
        all_s=all_s,
        bare_s=bare_s,
    )


def _spec(url: str, connector: str, number: int) -> SendSpec:
    token = f"{connector}-{number}"
    return SendSpec(
        token=token,
        connector=connector,
        product=Product.WEBHOOK,
        url=url,
        headers=_headers(token),
        body=BODY,
        timeout_s=TIMEOUT_S,
        allow_networks=("127.0.0.0/8",),
        max_concurrency=AT_ONCE,
    )


def _headers(token: str) -> tuple[tuple[str, str], ...]:
    return (("content-type", "application/json"), ("idempotency-key", token))


def _through_the_sender(specs: Sequence[SendSpec]) -> tuple[dict[str, Receipt], float, float]:
    """Receipts by token, and the seconds until the last one of a well receiver and until the last of all."""
    sender, outcomes = Sender(), queue.SimpleQueue[Receipt]()
    receipts: dict[str, Receipt] = {}
    began, well_s = time.perf_counter(), 0.0
    for spec in specs:
        sender.submit(spec, outcomes)
    for _ in specs:
        receipt = outcomes.get(timeout=600)
        receipts[receipt.token] = receipt
        if receipt.connector in WELL:
            well_s = time.perf_counter() - began
    all_s = time.perf_counter() - began
    sender.stop()
    return receipts, well_s, all_s


async def _bare(urls: Sequence[str]) -> float:
    """Seconds in which a plain client posts the same bytes, as many at once as the sender may to these receivers."""
    waiting = iter(list(enumerate(urls)))

    async def work(session: aiohttp.ClientSession) -> None:
        for number, url in waiting:
            async with session.post(url, data=BODY, headers=dict(_headers(f"bare-{number}"))) as response:
                await response.read()

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        began = time.perf_counter()
        await asyncio.gather(*(work(session) for _ in range(AT_ONCE * len(WELL))))
        return time.perf_counter() - began


@contextmanager
def _receiver() -> Iterator[str]:
    """The counting receiver's address; it ends with this."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.counting"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.communicate(timeout=60)
