"""What stands around every page: the rail, and banners about the state of the service.

Both are tables that another app adds to, like kinds and permissions; an item is shown to those who may open it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from evidence.models import Connector
from evidence.permissions import Permission


@dataclass(frozen=True)
class Item:
    """A line of the rail. ``key`` is the page's ``section``, ``view`` the name of its address."""

    group: str
    key: str
    name: str
    icon: str
    view: str
    permission: str = Permission.READ_EVIDENCE


GROUPS = ("Work", "Evidence", "Setup")

RAIL: list[Item] = [
    Item("Work", "overview", "Overview", "home", "console:overview", Permission.READ_DASHBOARD),
    Item("Work", "cases", "Cases", "list", "console:cases"),
    Item("Work", "routes", "Routes", "route", "console:routes"),
    Item("Evidence", "ledger", "Ledger", "tree", "console:ledger"),
    Item("Evidence", "erasures", "Erasures", "eraser", "console:erasures"),
    Item(
        "Evidence",
        "public-safety",
        "Public safety",
        "shield",
        "console:public-safety",
        Permission.REVIEW_OVERRIDES,
    ),
    Item(
        "Evidence",
        "access-log",
        "Access log",
        "eye",
        "console:access-log",
        Permission.READ_ACCESS_LOG,
    ),
    Item("Setup", "connectors", "Connectors", "plug", "console:connectors", Permission.READ_DASHBOARD),
]


def register(items: Sequence[Item]) -> None:
    """Add another app's pages to the rail."""
    RAIL.extend(item for item in items if item not in RAIL)


@dataclass(frozen=True)
class Link:
    """A button that leads on: its words, icon and address."""

    words: str
    icon: str
    address: str


# What another app has about a connector, for who may read evidence.
ABOUT_CONNECTORS: list[Callable[[Connector], Iterable[Link]]] = []


def register_about_connectors(links: Callable[[Connector], Iterable[Link]]) -> None:
    """Add another app's links to the page of a connector."""
    if links not in ABOUT_CONNECTORS:
        ABOUT_CONNECTORS.append(links)


def about(connector: Connector) -> list[Link]:
    """Every link that leads from a connector's page to other apps' pages."""
    return [link for links in ABOUT_CONNECTORS for link in links(connector)]
