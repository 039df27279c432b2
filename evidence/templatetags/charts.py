"""Charts drawn by the server as SVG, without script or inline style.

Beside each stands a sentence or a table that says the same.
"""

from collections.abc import Callable, Sequence

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from evidence.domain.connector_health import Slot
from evidence.domain.trends import Day

register = template.Library()

# Parts of a day's bar from the ground up: attribute of a day, and its colour.
PARTS = (("delivered", "c-ok"), ("failed", "c-bad"), ("unknown", "c-unk"))
GAP = 6


@register.simple_tag
def spark(slots: Sequence[Slot]) -> SafeString:
    """Medians of half hours as a line on its own scale, with a mark where a try was not delivered.

    A half hour without an answer interrupts the line; one alone between such is a dot's width of line.
    """
    width, height = 100.0, 24
    step = width / max(len(slots), 1)
    top = max((slot.median_ms or 0 for slot in slots), default=0) or 1
    marks = format_html_join(
        "",
        '<rect class="c-bad" x="{}" y="0" width="{}" height="{}"/>',
        ((f"{place * step:.1f}", f"{step:.1f}", height) for place, slot in enumerate(slots) if slot.failed),
    )
    drawn = _line(slots, step, lambda ms: height - 2 - ms / top * (height - 5))
    return format_html(
        '<svg class="spark" viewBox="0 0 100 {}" preserveAspectRatio="none" aria-hidden="true">{}{}</svg>',
        height,
        marks,
        drawn,
    )


@register.simple_tag
def bars(days: Sequence[Day], labelled_by: str, width: int = 400, height: int = 124) -> SafeString:
    """One stacked bar a day: delivered below, then failed, then unknown.

    ``labelled_by`` is the id of the sentence that says what is to be seen.
    """
    top = max((day.total for day in days), default=0) or 1
    each = (width - GAP * (len(days) - 1)) / max(len(days), 1)
    rects = []
    for place, day in enumerate(days):
        ground = float(height)
        for name, css in PARTS:
            if not (value := getattr(day, name)):
                continue
            high = value / top * (height - 4)
            ground -= high
            rects.append(
                (
                    css,
                    f"{place * (each + GAP):.1f}",
                    f"{ground:.1f}",
                    f"{each:.1f}",
                    f"{max(high - 0.75, 2):.1f}",
                )
            )
    drawn = format_html_join("", '<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="1"/>', rects)
    return _chart(drawn, labelled_by, width, height)


@register.simple_tag
def area(values: Sequence[int], labelled_by: str, width: int = 400, height: int = 124) -> SafeString:
    """A line over its filled ground, from the lowest value to the highest; a flat one lies in the middle."""
    low, high = min(values, default=0), max(values, default=0)
    step = width / max(len(values) - 1, 1)

    def y(value: int) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return height - 4 - share * (height - 12)

    line = " ".join(f"{place * step:.1f},{y(value):.1f}" for place, value in enumerate(values))
    drawn = format_html(
        '<polygon class="c-area" points="0,{} {} {},{}"/><polyline class="c-line" points="{}"/>',
        height,
        line,
        width,
        height,
        line,
    )
    return _chart(drawn, labelled_by, width, height)


@register.simple_tag
def latency(slots: Sequence[Slot], prefix: str, width: int = 400, height: int = 124) -> SafeString:
    """Medians of half hours on a scale from nothing to the longest, and marks where a try was not delivered.

    Has a title and a description of its own; ``prefix`` makes their ids differ from others of the page.
    """
    step = width / max(len(slots), 1)
    known = [slot.median_ms for slot in slots if slot.median_ms is not None]
    top = max(known, default=0) or 1
    marks = format_html_join(
        "",
        '<rect class="c-bad" x="{}" y="{}" width="{}" height="{}"/>',
        (
            (f"{place * step + 0.5:.1f}", height - 6, f"{max(step - 1, 1):.1f}", 6)
            for place, slot in enumerate(slots)
            if slot.failed
        ),
    )
    drawn = _line(slots, step, lambda ms: height - 10 - ms / top * (height - 16))
    failed = sum(slot.failed > 0 for slot in slots)
    answers = (
        f"Median time to an answer of each half hour: {min(known):,} to {max(known):,} ms."
        if known
        else "Nothing answered."
    )
    described = format_html(
        '<title id="{prefix}-t">Latency of the last 24 hours</title><desc id="{prefix}-d">{answers} '
        "In {failed} of {count} half hours a try was not delivered.</desc>",
        prefix=prefix,
        answers=answers,
        failed=failed,
        count=len(slots),
    )
    inner = format_html("{}{}{}", described, marks, drawn)
    return _chart(inner, f"{prefix}-t {prefix}-d", width, height)


def _line(slots: Sequence[Slot], step: float, y: Callable[[int], float]) -> SafeString:
    """Medians as lines that a slot without one interrupts; one alone between such is a slot's width of line."""
    lines: list[list[str]] = [[]]
    for place, slot in enumerate(slots):
        if slot.median_ms is None:
            lines.append([])
            continue
        ends = (place, place + 1) if not lines[-1] else (place + 1,)
        lines[-1] += [f"{end * step:.1f},{y(slot.median_ms):.1f}" for end in ends]
    return format_html_join(
        "", '<polyline class="c-line" points="{}"/>', ((" ".join(line),) for line in lines if line)
    )


def _chart(drawn: SafeString, labelled_by: str, width: int, height: int) -> SafeString:
    """A chart on three hairlines."""
    grid = format_html_join(
        "",
        '<line class="c-grid" x1="0" x2="{}" y1="{}" y2="{}"/>',
        ((width, y, y) for y in (0.5, height / 2, height - 0.5)),
    )
    return format_html(
        '<svg class="chart" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-labelledby="{}">{}{}</svg>',
        width,
        height,
        labelled_by,
        grid,
        drawn,
    )
