"""This app's pages in the console's rail, and from the page of a connector."""

from collections.abc import Iterator

from django.urls import reverse

from evidence.console.chrome import Item, Link
from evidence.models import Connector
from recovery.domain import playbooks
from recovery.models import Recovery

PAGES = (
    Item("Work", "approvals", "Approvals", "shield", "recovery:approvals"),
    Item("Work", "sets", "Sets", "copy", "recovery:sets"),
    Item("Work", "recoveries", "Recoveries", "book", "recovery:recoveries"),
    Item("Evidence", "runs", "Worker runs", "play", "recovery:runs"),
    Item("Evidence", "statements", "Statements", "chart", "recovery:statements"),
)


def about_connector(connector: Connector) -> Iterator[Link]:
    """The recovery that goes on, if one does."""
    unfinished = Recovery.objects.filter(connector=connector).exclude(state__in=playbooks.FINISHED)
    if unfinished.exists():
        address = reverse("recovery:recovery", kwargs={"provider": connector.key})
        yield Link("Open recovery", "book", address)
