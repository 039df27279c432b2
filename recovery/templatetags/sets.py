"""Where many items stand, drawn."""

from collections.abc import Sequence

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from evidence.templatetags.console import shown

register = template.Library()

WIDTH = 400

# How a number of items stands, where that is not said as one item is.
MANY = {
    "pending": "wait for approval",
    "queued": "wait for the worker",
    "claimed": "under way",
    "outcome_unknown": "of unknown outcome",
    "manifest_changed": "void",
}


@register.filter
def many(state: str) -> str:
    """The words behind a number of items that stand so."""
    return MANY.get(state) or shown(state)[2].lower()


@register.simple_tag
def stacked(counts: Sequence[tuple[str, int]], labelled_by: str) -> SafeString:
    """One bar of all items, a stretch for each state in its tone; ``labelled_by`` is the id of the same in words."""
    total = sum(count for _, count in counts) or 1
    stretches, start = [], 0.0
    for state, count in counts:
        width = WIDTH * count / total
        stretches.append((shown(state)[0], f"{start:.1f}", f"{max(width - 1, 0.5):.1f}"))
        start += width
    drawn = format_html_join(
        "", '<g class="is-{}"><rect class="bar-fg" x="{}" width="{}" height="8"/></g>', stretches
    )
    return format_html(
        '<svg class="stacked" viewBox="0 0 {} 8" preserveAspectRatio="none" role="img" aria-labelledby="{}">{}</svg>',
        WIDTH,
        labelled_by,
        drawn,
    )
