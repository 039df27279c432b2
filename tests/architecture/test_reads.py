"""Who reads evidence is noted: an address that only its readers may ask is a read, or stands here with its reason."""

from collections.abc import Iterator

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from evidence.domain import access
from evidence.enums import Role
from tests.architecture.test_urls import _filled
from tests.builders import person

LIST = "a list: ids, states and times, no record's text"
LOG = "heads, hashes and keys of the log: they hold no evidence, and whoever checks us asks for them all the time"
NOT_NOTED = {
    "access-log": "who read is no evidence",
    "case-capsules": LIST,
    "cases": LIST,
    "console:access-log": "who read is no evidence",
    "console:cases": LIST,
    "console:deliver": "an empty form",
    "console:erasures": LIST,
    "console:find": "leads to pages that are noted",
    "console:ledger": LOG,
    "console:public_keys": LOG,
    "console:routes": LIST,
    "console:signed_head": LOG,
    "console:stamp": "whether a page is still the newest",
    "console:verification": LOG,
    "erasures": LIST,
    "go_rollback_drill_notification_routes": LIST,
    "ledger-anchors": LOG,
    "ledger-checkpoints": LOG,
    "ledger-consistency": LOG,
    "ledger-keys": LOG,
    "legal-holds": LIST,
    "recovery:approvals": LIST,
    "recovery:cases": LIST,
    "recovery:recoveries": LIST,
    "recovery:run": "states of a run; its records are noted where they are opened",
    "recovery:runs": LIST,
    "recovery:sets": LIST,
    "tlog-checkpoint": LOG,
    "tlog-tile": LOG,
}


def views(
    patterns: list[URLPattern | URLResolver], prefix: str = "/", space: str = ""
) -> Iterator[tuple[str, str]]:
    """Name and an address of every view outside Django's admin."""
    for pattern in patterns:
        route = prefix + _filled(str(pattern.pattern))
        if isinstance(pattern, URLResolver):
            inside = f"{space}{pattern.namespace}:" if pattern.namespace else space
            if pattern.namespace != "admin":
                yield from views(pattern.url_patterns, route, inside)
        elif pattern.name:
            yield space + pattern.name, route


@pytest.mark.django_db
def test_every_read_of_evidence_is_noted_or_says_why_not() -> None:
    reader, viewer = Client(), Client()
    reader.force_login(person(Role.AUDITOR))
    viewer.force_login(person(Role.VIEWER))
    for_readers = set()
    for name, address in views(get_resolver().url_patterns):
        allowed = reader.get(address).status_code not in (401, 403, 405)
        if allowed and viewer.get(address).status_code == 403:
            for_readers.add(name)
    assert len(for_readers) > 20
    assert for_readers - access.READS.keys() == NOT_NOTED.keys()
