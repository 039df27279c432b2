"""Testing a connector as it is saved: its secrets, its address, its certificate, and a canary.

A test sends no evidence and changes no setting. The canary alone leaves a record, its own, and moves the breaker.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from evidence.connectors import probing
from evidence.connectors.credentials import REFERENCES, Misconfigured
from evidence.connectors.failures import PROPERTIES, STEPS
from evidence.connectors.probing import Probe, Stage
from evidence.connectors.products import PRODUCTS
from evidence.connectors.redaction import redact
from evidence.connectors.references import resolve
from evidence.connectors.specs import SendSpec
from evidence.domain import canaries, policies, sending
from evidence.domain import clock as clocks
from evidence.domain.clock import Clock
from evidence.enums import CanaryMeans, FailureClass, Outcome, Product
from evidence.errors import DomainError
from evidence.models import Canary, Connector, Person
from evidence.permissions import Permission

# A certificate that ends sooner is worth a word: changing one takes people.
EXPIRES_SOON_DAYS = 30


class Word(StrEnum):
    """What became of a step."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    NOT_REACHED = "not reached"


@dataclass(frozen=True)
class Step:
    """One step: what it looks at, what became of it, a sentence, and what to do (of ``failures.STEPS``)."""

    name: str
    word: Word
    said: str
    to_do: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reference:
    """One of a connector's references, and whether it stands for a secret now; ``problem`` is the rule it breaks."""

    field: str
    problem: str

    @property
    def is_set(self) -> bool:
        """Whether it stands for something."""
        return not self.problem


NAMES = {
    Stage.DESTINATION: "Destination",
    Stage.NAME: "Host name",
    Stage.ADDRESS: "Address",
    Stage.CONNECTION: "Connection",
    Stage.PROXY: "Proxy",
    Stage.CERTIFICATE: "Certificate",
}
_FINE = {
    Stage.DESTINATION: "As far as its name can be known here, the proxy may be asked for it.",
    Stage.NAME: "The name resolves.",
    Stage.ADDRESS: "It may be reached.",
    Stage.CONNECTION: "It takes connections.",
    Stage.PROXY: "The proxy lets it through.",
}


def references(connector: Connector) -> list[Reference]:
    """Every reference that is given, and whether it stands for a secret on this machine at this moment."""
    found = []
    for field in REFERENCES:
        if not (ref := getattr(connector, field)):
            continue
        try:
            resolve(ref, field=field)
            problem = ""
        except Misconfigured as error:
            problem = error.rule
        found.append(Reference(field, problem))
    return found


def run(connector: Connector, *, by: Person, clock: Clock) -> list[Step]:
    """Test ``connector`` and say what became of each step; what follows a failed one is not reached.

    Takes at most twice the connector's timeout and a canary's wait for a slot. Raises ``NotAllowed`` without the role.
    """
    policies.require_role(by, Permission.CONFIGURE)
    steps = [_secrets(connector)]
    spec = _spec(connector)
    if isinstance(spec, Misconfigured):
        # A secret that is missing was said already.
        said = steps[0].word is Word.FAILED and spec.failure_class is FailureClass.AUTH_SETUP
        problem = f"It cannot be used: {spec}."
        steps.append(
            _not_reached("Configuration")
            if said
            else Step("Configuration", Word.FAILED, problem, _to_do(spec.failure_class))
        )
        steps += [_not_reached(NAMES[stage]) for stage in (Stage.NAME, Stage.ADDRESS, Stage.CONNECTION)]
    else:
        steps.append(Step("Configuration", Word.OK, "It can be used as it is saved."))
        seen = not policies.reasons_against_role(by, Permission.READ_DIAGNOSTICS)
        steps += _connection(probing.probe(spec), clocks.read(clock), seen=seen, proxied=bool(spec.proxy_url))
    failed = any(step.word is Word.FAILED for step in steps)
    steps.append(_not_reached("Canary") if failed else _canary(connector, by=by, clock=clock))
    return steps


def _secrets(connector: Connector) -> Step:
    given = references(connector)
    broken = [f"{one.field} {one.problem}" for one in given if not one.is_set]
    if broken:
        return Step("Secrets", Word.FAILED, f"{'; '.join(broken)}.", _to_do(FailureClass.AUTH_SETUP))
    if not given:
        return Step("Secrets", Word.OK, "It names none.")
    return Step("Secrets", Word.OK, f"Set: {', '.join(one.field for one in given)}.")


def _spec(connector: Connector) -> SendSpec | Misconfigured:
    """An order without content, as it would be sent; or why there can be none."""
    try:
        prepared = sending.address_body(connector, b"", "application/json", about=connector.key)
    except Misconfigured as error:
        return error
    return sending.spec_for(prepared, connector, token=connector.key, timeout_s=connector.timeout_ms / 1000)


def _connection(probe: Probe, at: datetime, *, seen: bool, proxied: bool) -> Iterator[Step]:
    done = False
    for stage in probe.stages:
        name = f"{NAMES[stage]} of the proxy" if proxied and stage in _OF_THE_PROXY else NAMES[stage]
        if done:
            yield _not_reached(name)
        elif stage is probe.failed:
            done = True
            yield Step(name, Word.FAILED, f"{_sentence(probe.why)}.", _to_do(probe.failure_class))
        elif stage is Stage.CERTIFICATE:
            yield _certificate(name, probe, at, seen=seen)
        elif stage is Stage.ADDRESS and seen and probe.address:
            yield Step(name, Word.OK, redact(f"{probe.address} may be reached."))
        else:
            yield Step(name, Word.OK, _FINE[stage])


_OF_THE_PROXY = frozenset({Stage.NAME, Stage.ADDRESS, Stage.CONNECTION})


def _certificate(name: str, probe: Probe, at: datetime, *, seen: bool) -> Step:
    shown = probe.certificate
    if shown is None:
        return _not_reached(name)
    days = (shown.until - at).days
    whose = f" for {', '.join(shown.names[:5])}" if seen and shown.names else ""
    said = redact(f"Verified{whose}, until {shown.until:%Y-%m-%d} ({days} days), {shown.version}.")
    if days < EXPIRES_SOON_DAYS:
        return Step(name, Word.WARNING, f"{said} It ends soon.", (STEPS["check_certificate"],))
    return Step(name, Word.OK, said)


def _canary(connector: Connector, *, by: Person, clock: Clock) -> Step:
    try:
        canary = canaries.send(connector, by=by, clock=clock)
    except DomainError as error:
        return Step("Canary", Word.NOT_REACHED, error.detail)
    what = {
        CanaryMeans.MESSAGE: "A test message was sent",
        CanaryMeans.QUESTION: "It was asked for a message that never was",
        CanaryMeans.CONNECTION: "A connection was opened; a test message would leave something behind",
    }[CanaryMeans(canary.means)]
    took = f" after {canary.duration_ms} ms" if canary.duration_ms is not None else ""
    if canary.outcome == Outcome.DELIVERED:
        earned = (
            f" {PRODUCTS[Product(connector.product)].earned}" if canary.means == CanaryMeans.MESSAGE else ""
        )
        return Step("Canary", Word.OK, f"{what}, with success{took}.{earned}")
    return Step("Canary", Word.FAILED, f"{what}, and failed{took}: {_why(canary)}.", _to_do_of(canary))


def _why(canary: Canary) -> str:
    if not canary.failure_class:
        return "nobody heard of it again"
    status = f" (status {canary.status_code})" if canary.status_code else ""
    return PROPERTIES[FailureClass(canary.failure_class)].label + status


def _to_do_of(canary: Canary) -> tuple[str, ...]:
    return _to_do(FailureClass(canary.failure_class) if canary.failure_class else None)


def _to_do(failure: FailureClass | None) -> tuple[str, ...]:
    return tuple(STEPS[step] for step in PROPERTIES[failure].steps) if failure else ()


def _not_reached(name: str) -> Step:
    return Step(name, Word.NOT_REACHED, "An earlier step failed.")


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]
