"""What each product wants to receive and how it says yes. One module per product, one table of them."""

from evidence.connectors.products import (
    datadog,
    jira,
    mail,
    pagerduty,
    sentinel,
    servicenow,
    slack,
    splunk,
    syslog,
    teams,
    webhook,
)
from evidence.connectors.products.adapter import Adapter
from evidence.enums import Product

PRODUCTS: dict[Product, Adapter] = {
    Product.WEBHOOK: webhook.ADAPTER,
    Product.SPLUNK: splunk.ADAPTER,
    Product.SENTINEL: sentinel.ADAPTER,
    Product.DATADOG: datadog.ADAPTER,
    Product.JIRA: jira.ADAPTER,
    Product.SERVICENOW: servicenow.ADAPTER,
    Product.SLACK: slack.ADAPTER,
    Product.TEAMS: teams.ADAPTER,
    Product.PAGERDUTY: pagerduty.ADAPTER,
    Product.SYSLOG: syslog.ADAPTER,
    Product.EMAIL: mail.ADAPTER,
}
