"""What each product receives and how it says yes."""

import json

import pytest

from evidence.connectors.products import PRODUCTS
from evidence.connectors.specs import ConnectorSettings
from evidence.enums import Assurance, FailureClass, Product

EVENT = {"session_id": "d1", "b": 2, "a": [1, "é"], "delivery_plan": {"y": None, "x": True}}


def settings(product, **changes):
    return ConnectorSettings(key="c", product=product, **changes)


def test_every_product_has_a_module():
    assert set(PRODUCTS) == set(Product)


def test_webhook_body_is_the_event_in_canonical_form():
    body, content_type = PRODUCTS[Product.WEBHOOK].render(EVENT, settings(Product.WEBHOOK), "m1")
    assert body == '{"a":[1,"é"],"b":2,"delivery_plan":{"x":true,"y":null},"session_id":"d1"}'.encode()
    assert content_type == "application/json"
    again, _ = PRODUCTS[Product.WEBHOOK].render(
        dict(reversed(EVENT.items())), settings(Product.WEBHOOK), "m1"
    )
    assert again == body


def test_splunk_body_is_a_hec_envelope():
    body, _ = PRODUCTS[Product.SPLUNK].render({"a": 1}, settings(Product.SPLUNK), "m1")
    assert body == b'{"event":{"a":1},"sourcetype":"cavra:rollback_drill_ack_audit"}'
    body, _ = PRODUCTS[Product.SPLUNK].render({"a": 1}, settings(Product.SPLUNK, index="audit"), "m1")
    assert json.loads(body)["index"] == "audit"


@pytest.mark.parametrize("status", (200, 201, 202, 204))
@pytest.mark.parametrize("body", (b"", b"no json", b'{"code":7}'))
def test_webhook_accepts_any_2xx(status, body):
    assert PRODUCTS[Product.WEBHOOK].recognise(status, body) is Assurance.ACCEPTED


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    (
        (200, b'{"text":"Success","code":0}', Assurance.ACCEPTED),
        (200, b'{"text":"Success","code":0,"ackId":4}', Assurance.ACCEPTED),
        (200, b'{"text":"Invalid token","code":4}', FailureClass.AUTH),
        (200, b'{"text":"Incorrect index","code":7}', FailureClass.REJECTED),
        (200, b'{"text":"Server is busy","code":9}', FailureClass.UNAVAILABLE),
        (200, b'{"code":999}', FailureClass.BAD_RESPONSE),
        (200, b'{"code":false}', FailureClass.BAD_RESPONSE),
        (200, b'{"code":"0"}', FailureClass.BAD_RESPONSE),
        (200, b'{"code":0.0}', FailureClass.BAD_RESPONSE),
        (200, b'{"text":"Success"}', FailureClass.BAD_RESPONSE),
        (200, b'[{"code":0}]', FailureClass.BAD_RESPONSE),
        (200, b"0", FailureClass.BAD_RESPONSE),
        (200, b"<html>ok</html>", FailureClass.BAD_RESPONSE),
        (200, b"\xff\xfe", FailureClass.BAD_RESPONSE),
        (200, b"", FailureClass.BAD_RESPONSE),
        (200, b"[" * 65536, FailureClass.BAD_RESPONSE),
        (400, b'{"code":0}', FailureClass.REJECTED),
        (403, b'{"text":"Invalid token","code":4}', FailureClass.AUTH),
        (503, b'{"text":"Server is busy","code":9}', FailureClass.UNAVAILABLE),
        (302, b'{"code":0}', FailureClass.BAD_RESPONSE),
    ),
)
def test_splunk_accepts_code_0_only(status, body, expected):
    assert PRODUCTS[Product.SPLUNK].recognise(status, body) == expected
