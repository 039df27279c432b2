"""This app's pages in the console's rail."""

from evidence.console.chrome import Item

PAGES = (
    Item("Work", "approvals", "Approvals", "shield", "recovery:approvals"),
    Item("Work", "sets", "Sets", "copy", "recovery:sets"),
    Item("Work", "recoveries", "Recoveries", "book", "recovery:recoveries"),
    Item("Evidence", "runs", "Worker runs", "play", "recovery:runs"),
    Item("Evidence", "statements", "Statements", "chart", "recovery:statements"),
)
