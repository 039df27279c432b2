"""Webhooks are signed the Standard Webhooks way, verified here by that project's own library (P20, W29)."""

import base64
import secrets
import time
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from evidence.connectors.credentials import Misconfigured
from evidence.connectors.products import webhook
from evidence.enums import FailureClass, Product
from tests.evidence.connectors.ordering import KEY, MESSAGE_ID, configured, delivered, order, tls
from tests.evidence.connectors.receiver import answer, send
from tests.evidence.connectors.sample import event

NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()
OLD = "whsec_" + base64.b64encode(b"o" * 24).decode()
RAW = "a-shared-text-of-enough-length"


@pytest.fixture(autouse=True)
def _secrets(monkeypatch):
    for name, value in (("NEW", NEW), ("OLD", OLD), ("RAW", RAW)):
        monkeypatch.setenv(name, value)


class Verifier:
    """A receiver that takes what its library verifies, and refuses the rest."""

    def __init__(self, secret):
        self.webhook = Webhook(secret)
        self.taken = []

    def __call__(self, request, _sock):
        try:
            self.taken.append(self.webhook.verify(request.body, request.headers))
        except WebhookVerificationError as error:
            return answer(401, str(error).encode())
        return answer(200)


def signing(receiver, signing_ref="env:NEW", **changes):
    return configured(Product.WEBHOOK, receiver, signing_ref=signing_ref, **changes)


def serve(receive, secret):
    verifier = Verifier(secret)
    return verifier, receive(verifier, tls=tls())


@pytest.mark.parametrize(
    ("reference", "secret"), (("env:NEW", NEW), ("env:OLD", OLD), ("env:RAW", RAW.encode()))
)
def test_a_receiver_verifies_the_signature(sender, receive, reference, secret):
    verifier, receiver = serve(receive, secret)
    receipt = delivered(sender, signing(receiver, reference), event())
    assert receipt.delivered, receipt
    assert verifier.taken == [event()]
    assert {"webhook-id", "webhook-signature", "webhook-timestamp"} <= set(receipt.header_names)


@pytest.mark.parametrize("known", (NEW, OLD))
def test_while_the_secret_changes_receivers_may_know_either(sender, receive, known):
    verifier, receiver = serve(receive, known)
    settings = signing(receiver, previous_signing_ref="env:OLD")
    assert delivered(sender, settings, event()).delivered
    newest, previous = receiver.requests[0].headers["webhook-signature"].split(" ")
    assert newest != previous
    assert all(signature.startswith("v1,") for signature in (newest, previous))
    # The newest key's first.
    alone = dict(receiver.requests[0].headers, **{"webhook-signature": newest})
    assert Webhook(NEW).verify(receiver.requests[0].body, alone) == event()
    assert verifier.taken == [event()]


def test_a_receiver_with_another_secret_refuses(sender, receive):
    verifier, receiver = serve(receive, "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())
    receipt = delivered(sender, signing(receiver, previous_signing_ref="env:OLD"), event())
    assert (receipt.failure_class, receipt.status_code) == (FailureClass.AUTH, 401)
    assert verifier.taken == []


def test_a_receiver_refuses_a_changed_body_and_an_old_timestamp(sender, receive):
    _, receiver = serve(receive, NEW)
    assert delivered(sender, signing(receiver), event()).delivered
    (request,) = receiver.requests
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(NEW).verify(request.body.replace(b"critical", b"healthy!"), request.headers)
    moved = {**request.headers, "webhook-timestamp": str(int(request.headers["webhook-timestamp"]) + 1)}
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(NEW).verify(request.body, moved)
    spec = order(signing(receiver), event())
    for minutes, why in ((-6, "too old"), (6, "too new")):
        made = dict(webhook.sign(spec, datetime.now(UTC) + timedelta(minutes=minutes)))
        with pytest.raises(WebhookVerificationError, match=why):
            Webhook(NEW).verify(spec.body, {**dict(spec.headers), **made})


def test_w29_every_try_has_the_same_body_id_and_key_and_a_signature_of_its_moment(sender, receive):
    verifier, receiver = serve(receive, NEW)
    spec = order(signing(receiver), event())
    for _ in range(2):
        (receipt,) = send(sender, spec)
        assert receipt.delivered
        time.sleep(1.1)  # timestamps are whole seconds
    first, second = receiver.requests
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    assert first.body == second.body
    assert (first.key, first.headers["webhook-id"]) == (second.key, second.headers["webhook-id"])
    assert (first.key, first.headers["webhook-id"]) == (KEY, MESSAGE_ID)
    assert len(verifier.taken) == 2


def test_the_signature_is_made_when_the_message_leaves():
    """Not when it was prepared: an approval may lie in between, and a receiver takes five minutes at most."""
    settings = configured(Product.WEBHOOK, url="https://hooks.example/in", signing_ref="env:NEW")
    spec = order(settings, event())
    assert {"webhook-signature", "webhook-timestamp"}.isdisjoint(dict(spec.headers))
    first = webhook.sign(spec, datetime(2026, 11, 28, 10, 0, 0, tzinfo=UTC))
    assert first == webhook.sign(spec, datetime(2026, 11, 28, 10, 0, 0, 999_999, tzinfo=UTC))
    assert first != webhook.sign(spec, datetime(2026, 11, 28, 10, 0, 1, tzinfo=UTC))
    assert dict(first)["webhook-timestamp"] == "1795860000"


def test_without_a_signing_secret_nothing_is_signed(sender, receive):
    receiver = receive(tls=tls())
    receipt = delivered(sender, configured(Product.WEBHOOK, receiver), event())
    assert receipt.delivered
    assert {"webhook-signature", "webhook-timestamp"}.isdisjoint(receiver.requests[0].headers)


def test_without_a_message_id_nothing_is_signed_or_sent(sender, receive):
    receiver = receive(tls=tls())
    receipt = delivered(sender, signing(receiver), event(), message_id="")
    assert (receipt.failure_class, receipt.bytes_sent) == (FailureClass.MISCONFIGURED, 0)
    assert receiver.requests == []


@pytest.mark.parametrize(
    "value",
    (
        "whsec_",
        "whsec_not base64!",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        "whsec_" + base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        "too-short",
        "x" * 23,
    ),
)
@pytest.mark.parametrize("field", ("signing_ref", "previous_signing_ref"))
def test_a_malformed_secret_is_noticed_when_a_message_is_prepared(monkeypatch, receive, value, field):
    monkeypatch.setenv("BAD", value)
    with pytest.raises(Misconfigured) as refused:
        order(signing(receive(), **{field: "env:BAD"}), event())
    assert (refused.value.field, refused.value.failure_class) == (field, FailureClass.AUTH_SETUP)
    assert value not in str(refused.value)


@pytest.mark.parametrize("size", (24, 32, 64))
def test_secrets_of_every_permitted_size_sign_with_and_without_padding(size):
    encoded = base64.b64encode(b"\xfb\xff" * (size // 2)).decode()
    for value in (f"whsec_{encoded}", f"whsec_{encoded.rstrip('=')}"):
        assert webhook.secret_problem("signing", value) is None


def test_w28_signatures_and_secrets_never_come_back(sender, receive):
    receiver = receive(lambda request, _sock: answer(400, request.raw), tls=tls())
    receipt = delivered(sender, signing(receiver, previous_signing_ref="env:OLD"), {"a": 1})
    (request,) = receiver.requests
    assert receipt.answer_excerpt
    for signature in request.headers["webhook-signature"].split(" "):
        for shown in (receipt.answer_excerpt, repr(receipt), receipt.error):
            assert signature not in shown
            assert signature.removeprefix("v1,") not in shown
