"""What each product wants to receive and how it says yes. One module per product, one table of them."""

from evidence.connectors.products import jira, servicenow, splunk, webhook
from evidence.connectors.products.adapter import Adapter
from evidence.enums import Product

PRODUCTS: dict[Product, Adapter] = {
    Product.WEBHOOK: webhook.ADAPTER,
    Product.SPLUNK: splunk.ADAPTER,
    Product.JIRA: jira.ADAPTER,
    Product.SERVICENOW: servicenow.ADAPTER,
}
