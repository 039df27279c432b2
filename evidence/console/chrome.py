"""What stands around every page: the rail, and banners about the state of the service.

Both are tables that another app adds to, like kinds and permissions; an item is shown to those who may open it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
