"""How long public safety looks at text: two kilobytes of plain text and of secrets, and of the worst unit there is."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from evidence.domain import public_safety
from evidence.domain.safety_rules import RULES
from tests.evidence import safety_corpus

SIZE = 2_048
ROUNDS = 5


@dataclass(frozen=True)
class Looked:
    """Milliseconds of the processor for ``SIZE`` characters, in the middle and at most, over ``texts`` texts."""

    what: str
    texts: int
    median_ms: float
    worst_ms: float


def measure(characters: int = 400_000) -> list[Looked]:
    """Each of three sorts of text, the best of ``ROUNDS`` rounds for each one."""
    plain = "\n".join(safety_corpus.plain(characters, seed=3))
    secret = "\n".join(text for _, text in safety_corpus.secrets(characters // 400, seed=4))
    units = sorted({anchor for rule in RULES for anchor in rule.anchors})
    hard = [(unit * (SIZE // len(unit) + 1))[:SIZE] for unit in units]
    return [
        _looked("logs, digests, certificates, prose", _pieces(plain)),
        _looked("nothing but secrets", _pieces(secret)),
        _looked("one word of a rule again and again", hard),
    ]


def _pieces(text: str) -> list[str]:
    return [text[start : start + SIZE] for start in range(0, max(1, len(text) - SIZE), SIZE)]


def _looked(what: str, texts: Sequence[str]) -> Looked:
    taken = [min(_milliseconds(text) for _ in range(ROUNDS)) for text in texts]
    return Looked(what, len(texts), statistics.median(taken), max(taken))


def _milliseconds(text: str) -> float:
    began = time.thread_time()
    public_safety.find(text)
    return (time.thread_time() - began) * 1_000
