"""Small parts that every page of the console is made of."""

from datetime import UTC, datetime

from django import template
from django.templatetags.static import static
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from evidence.models import LedgerHead, Person

register = template.Library()

# State → tone, icon, words: the one table behind every pill. What is missing is shown as it is, without colour.
STATES = {
    "delivered": ("ok", "check", "Delivered"),
    "failed": ("bad", "x", "Failed"),
    "sending": ("info", "spin", "Sending"),
    "outcome_unknown": ("unknown", "question", "Outcome unknown"),
    "skipped": ("idle", "minus", "Skipped"),
    "superseded_by": ("idle", "minus", "Superseded"),
    "abandoned": ("idle", "minus", "Abandoned"),
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
    "observed": ("idle", "play", "Observed"),
}


@register.simple_tag
def icon(name: str) -> SafeString:
    """An icon of the sprite; words beside it say the same."""
    return format_html(
        '<svg class="i" viewBox="0 0 16 16" aria-hidden="true"><use href="{}#{}"/></svg>',
        static("icons.svg"),
        name,
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


@register.simple_tag
def sealed_entries() -> str:
    """How many entries the ledger has."""
    size = LedgerHead.objects.values_list("size", flat=True).first()
    return f"{size or 0:,}"


@register.filter
def roles(person: Person) -> str:
    """The roles somebody holds, in words."""
    return ", ".join(sorted(person.groups.values_list("name", flat=True))) or "no role"
