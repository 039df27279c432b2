"""Small parts that every page of the console is made of."""

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from django import template
from django.template import Context
from django.urls import NoReverseMatch, reverse
from django.utils.html import conditional_escape, format_html, format_html_join
from django.utils.safestring import SafeString

from evidence.console import chrome
from evidence.domain import text
from evidence.models import Person

register = template.Library()

# An id of a record, or of a case with its connector behind the dot. That of a person names no page.
_OWN_ID = re.compile(r"\b(?!person-)[a-z]+-[0-9a-f]{16}(?P<connector>\.[a-z0-9_]{1,40})?")

# State → tone, icon, words: the one table behind every pill. What is missing is shown as it is, without colour.
STATES = {
    "delivered": ("ok", "check", "Delivered"),
    "failed": ("bad", "x", "Failed"),
    "parked": ("idle", "clock", "Parked"),
    "opened": ("bad", "pause", "Opened"),
    "closed": ("ok", "check", "Closed"),
    "half_open": ("warn", "clock", "Half open"),
    "sending": ("info", "spin", "Sending"),
    "outcome_unknown": ("unknown", "question", "Outcome unknown"),
    "skipped": ("idle", "minus", "Skipped"),
    "superseded_by": ("idle", "minus", "Superseded"),
    "abandoned": ("idle", "minus", "Abandoned"),
    "proposed": ("warn", "hourglass", "Proposed"),
    "confirmed": ("ok", "check", "Confirmed"),
    "refused": ("bad", "x", "Refused"),
    "erased": ("idle", "minus", "Erased"),
    "false_hit": ("ok", "check", "False hit"),
    "leak": ("bad", "warn", "Leak"),
    "two_people": ("idle", "minus", "By two people"),
    "retention": ("idle", "minus", "Under a retention rule"),
    "accepted": ("ok", "check", "Accepted"),
    "acknowledged": ("ok", "check", "Acknowledged"),
    "deferred": ("warn", "clock", "Deferred"),
    "escalated": ("warn", "up", "Escalated"),
    "dismissed": ("idle", "minus", "Dismissed"),
    "approved": ("ok", "shield", "Approved"),
    "denied": ("bad", "x", "Denied"),
    "expired": ("idle", "clock", "Expired"),
    "resolved": ("ok", "check", "Resolved"),
    "mitigated": ("info", "check", "Mitigated"),
    "reopened": ("bad", "retry", "Reopened"),
    "healthy": ("ok", "check", "Healthy"),
    "warning": ("warn", "warn", "Warning"),
    "critical": ("bad", "warn", "Critical"),
    "dry_run": ("idle", "play", "Dry run"),
    "live": ("info", "play", "Live"),
    "planned": ("idle", "send", "Planned"),
    "retry": ("warn", "retry", "Retry due"),
    "wait": ("idle", "clock", "Waiting"),
    "suppress": ("idle", "pause", "Suppressed"),
    "outstanding": ("warn", "hourglass", "Outstanding"),
    "pending": ("warn", "hourglass", "Waits for approval"),
    "withdrawn": ("idle", "minus", "Withdrawn"),
    "manifest_changed": ("bad", "x", "Void"),
    "not_sent": ("idle", "minus", "Not sent"),
    "claimed": ("info", "spin", "Claimed"),
    "cancelled": ("idle", "minus", "Cancelled"),
    "to_plan": ("warn", "retry", "To plan"),
    "to_acknowledge": ("warn", "hourglass", "To acknowledge"),
    "to_request": ("warn", "shield", "To ask for"),
    "used_up": ("idle", "pause", "No tries left"),
    "left_out": ("idle", "minus", "Not asked for"),
    "run_out": ("idle", "clock", "Ran out just now"),
    "not_delivered": ("bad", "x", "Not delivered"),
    "undetermined": ("idle", "question", "Cannot be told"),
    "open": ("warn", "book", "Open"),
    "queued": ("info", "clock", "Queued"),
    "running": ("info", "spin", "Running"),
    "finished": ("ok", "check", "Finished"),
    "disabled": ("idle", "pause", "Disabled"),
    "misconfigured": ("bad", "gear", "Misconfigured"),
    "observed": ("idle", "play", "Observed"),
    "breaker_closed": ("ok", "check", "Closed"),
    "breaker_open": ("bad", "x", "Open"),
    "breaker_half_open": ("warn", "hourglass", "Half-open"),
    "window": ("idle", "clock", "Maintenance"),
}


@register.simple_tag
def icon(name: str) -> SafeString:
    """An icon of the sprite; words beside it say the same."""
    turning = " spin" if name == "spin" else ""
    return format_html(
        '<svg class="i{}" viewBox="0 0 16 16" aria-hidden="true"><use href="#i-{}"/></svg>', turning, name
    )


@register.simple_tag
def pill(state: str, words: str = "") -> SafeString:
    """A state as shape, word and tone; nothing for no state."""
    if not state:
        return SafeString("")
    tone, glyph, default = shown(state)
    return format_html('<span class="pill is-{}">{}{}</span>', tone, icon(glyph), words or default)


@register.filter
def shown(state: str) -> tuple[str, str, str]:
    """Tone, icon and words of a state."""
    return STATES.get(state, ("idle", "dot", state.replace("_", " ").capitalize()))


@register.filter
def short(full_id: str) -> str:
    """The part of an id that tells it from others: eight digits, of a case with its connector."""
    tail, dot, connector = full_id.rsplit("-", 1)[-1].partition(".")
    return f"{tail[:8]}{dot}{connector}"


@register.simple_tag
def record_chip(record_id: str, kind: str = "") -> SafeString:
    """A record's id in short; leads to the record."""
    label = format_html('<span class="k">{}</span>', kind) if kind else ""
    address = reverse("console:record", kwargs={"record_id": record_id})
    return format_html(
        '<a class="chip" href="{}" title="{}">{}{}</a>', address, record_id, label, short(record_id)
    )


@register.filter
def with_chips(sentence: str) -> SafeString:
    """A sentence in which each id of a record or a case leads to its page."""
    parts = []
    end = 0
    for found in _OWN_ID.finditer(sentence):
        view, name = ("case", "case_id") if found["connector"] else ("record", "record_id")
        address = reverse(f"console:{view}", kwargs={name: found[0]})
        chip = format_html('<a class="chip" href="{}" title="{}">{}</a>', address, found[0], short(found[0]))
        parts += [conditional_escape(sentence[end : found.start()]), chip]
        end = found.end()
    return SafeString("".join([*parts, conditional_escape(sentence[end:])]))


@register.simple_tag
def entry_chip(index: int) -> SafeString:
    """A place in the ledger. What is stored is sealed."""
    return format_html(
        '<span class="chip" title="Ledger entry {}, sealed">{}<span class="k">entry</span>{}</span>',
        index,
        icon("check"),
        f"{index:,}",
    )


@register.simple_tag
def when(moment: datetime) -> SafeString:
    """How long ago, up to a day, then the date; the exact time in UTC is in the title."""
    minutes = int((datetime.now(UTC) - moment).total_seconds() // 60)
    if minutes < 1:
        words = "just now"
    elif minutes < 60:
        words = f"{minutes} min ago"
    elif minutes < 24 * 60:
        words = f"{minutes // 60} h ago"
    else:
        words = f"{moment.day} {moment:%b %Y %H:%M}"
    exact = f"{moment:%Y-%m-%d %H:%M:%S} UTC"
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), exact, words)


@register.filter
def roles(person: Person) -> str:
    """The roles somebody holds, in words."""
    return ", ".join(person.role_names) or "no role"


@register.simple_tag(takes_context=True)
def rail(context: Context) -> list[tuple[str, list[chrome.Item]]]:
    """Groups of the rail with the pages this person may open."""
    person = context["request"].user
    shown = [item for item in chrome.RAIL if person.has_perm(item.permission)]
    return [(group, [item for item in shown if item.group == group]) for group in chrome.GROUPS]


@register.filter
def theme_word(cookie: str) -> str:
    """The theme somebody chose; as the system has it unless they did."""
    return cookie if cookie in ("light", "dark") else "auto"


@register.filter
def digest(full: str) -> str:
    """The first sixteen digits in fours: what a button, a vote and a manifest are compared by."""
    return " ".join(full[start : start + 4] for start in range(0, 16, 4))


@register.filter
def button_digest(full: str) -> str:
    """The eight digits on a button."""
    return f"{full[:4]} {full[4:8]}"


@register.filter
def clock_time(moment: datetime) -> str:
    """A moment with its zone: the time, and the day unless it is today."""
    moment = moment.astimezone(UTC)
    day = "" if moment.date() == datetime.now(UTC).date() else f"{moment.day} {moment:%B} "
    return f"{day}{moment:%H:%M:%S} UTC"


@register.filter
def minutes(number: int) -> str:
    """A number of minutes in words."""
    return text.span(timedelta(minutes=number))


@register.simple_tag
def left(until: datetime, since: datetime | None = None) -> SafeString:
    """Remaining time: words for everybody and, of a known whole, a bar for the eye."""
    rest = until - datetime.now(UTC)
    seconds = rest.total_seconds()
    words = f"{text.span(rest)} left" if seconds > 0 else "run out"
    whole = (until - since).total_seconds() if since else 0
    share = max(0, min(100, round(100 * seconds / whole))) if whole > 0 else 100
    tone = "bad" if share < 5 or seconds < 45 * 60 else "warn" if share < 25 else "idle"
    bar = format_html(
        '<svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"><rect class="bar-bg" width="100" '
        'height="4"/><rect class="bar-fg" width="{}" height="4"/></svg>',
        share,
    )
    return format_html(
        '<span class="left is-{}"><time datetime="{}" title="{}"{}>{}</time>{}</span>',
        tone,
        until.isoformat(),
        f"{until:%Y-%m-%d %H:%M:%S} UTC",
        format_html(' data-until="{}"', until.isoformat()) if seconds > 0 else "",
        words,
        bar if whole > 0 else "",
    )


@register.simple_tag
def track(steps: Sequence[tuple[str, str, bool]]) -> SafeString:
    """Where a case stands: ``(tone, word, is now)`` of each step; no tone is a later one."""
    glyphs = {"ok": "check", "bad": "x", "unknown": "question"}
    items = format_html_join(
        "",
        "<li{}{}>{}<span>{}</span></li>",
        (
            (
                format_html(' class="is-{}"', tone) if tone else "",
                SafeString(' aria-current="step"') if now else "",
                icon(glyphs.get(tone, "dot") if tone else "later"),
                word,
            )
            for tone, word, now in steps
        ),
    )
    return format_html(
        '<div class="track-box"><ol class="track" aria-label="Where this case stands">{}</ol></div>', items
    )


@register.simple_tag
def mini(done: int, tone: str, words: str) -> SafeString:
    """Seven segments: how far a case is. For table rows."""
    bars = format_html_join(
        "",
        '<rect class="{}" x="{}" width="9" height="5" rx="1.5"/>',
        (("bar-fg" if n < done else "bar-bg", n * 11) for n in range(7)),
    )
    return format_html(
        '<svg class="is-{} mini" viewBox="0 0 75 5" width="75" height="5" role="img" aria-label="{}">{}</svg>',
        tone,
        words,
        bars,
    )


@register.simple_tag
def page_address(page: str, query: str) -> str:
    """Address of a page by its name, whichever app serves it, with a filter; the overview's leads to its history."""
    for space in ("console", "recovery"):
        with suppress(NoReverseMatch):
            address = reverse(f"{space}:{page}")
            return (
                f"{address}?{query}#history"
                if page == "overview"
                else f"{address}?{query}"
                if query
                else address
            )
    raise NoReverseMatch(page)
