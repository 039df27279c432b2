"""What each product wants to receive and how it says yes. One module per product, one table of them."""

from typing import Any, Protocol

from evidence.connectors.products import splunk, webhook
from evidence.connectors.specs import ConnectorSettings
from evidence.enums import Assurance, FailureClass, Product


class ProductModule(Protocol):
    """What a product's module offers.

    ``SCHEME`` is the authorization scheme of its tokens, ``NEEDS_CREDENTIAL`` whether it takes anything
    without one. ``AGAINST_ASKING`` says why it cannot be asked whether a message arrived; empty when it can.
    """

    SCHEME: str
    NEEDS_CREDENTIAL: bool
    AGAINST_ASKING: tuple[str, ...]

    def render(self, event: dict[str, Any], settings: ConnectorSettings) -> tuple[bytes, str]:
        """Body (RFC 8785) and content type for an event."""

    def identify(self, message_id: str) -> tuple[tuple[str, str], ...]:
        """Public headers by which the receiver recognises the message."""

    def recognise(self, status: int, body: bytes) -> Assurance | FailureClass:
        """What an answer stands for."""


PRODUCTS: dict[Product, ProductModule] = {Product.WEBHOOK: webhook, Product.SPLUNK: splunk}
