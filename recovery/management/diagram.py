"""Draws the chain: its steps from the kinds table, its states from the transition tables. Same tables, same bytes.

Plain SVG 1.1 with one style sheet that follows the reader's light or dark preference. Lengths are user units
(pixels at 100 %). Text widths are estimates with room to spare: nobody knows the reader's fonts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import permutations, product
from xml.sax.saxutils import escape

from evidence import documents as facts
from evidence.documents import Kind
from evidence.domain import transitions as evidence_transitions
from evidence.domain.transitions import Transitions
from evidence.permissions import ROLE_PERMISSIONS
from evidence.permissions import Permission as Fact
from recovery import documents as decisions
from recovery.domain import transitions as recovery_transitions
from recovery.permissions import Permission as Decision

TITLE = "From a failed delivery to a closed recovery"
SUBTITLE = (
    "Each step appends a record of the kind below it, sealed in the ledger with the change it speaks of. "
    "No retry leaves without a second person's approval of exactly these bytes."
)

# What happens, the record it leaves, and the act that a role must hold for it.
STEPS: tuple[tuple[str, Kind, StrEnum], ...] = (
    ("Tell the owners", facts.NOTIFICATION_PLAN, Fact.DELIVER),
    ("Owners answer", facts.NOTIFICATION_ACK, Fact.ACKNOWLEDGE),
    ("Freeze the answers", facts.AUDIT_PACKAGE, Fact.DELIVER),
    ("Open a case each", facts.DELIVERY_PLAN, Fact.DELIVER),
    ("Attempt 1 fails", facts.CONNECTOR_DELIVERY, Fact.DELIVER),
    ("Plan the retry", decisions.RETRY_PLAN, Decision.PLAN_RETRY),
    ("Review the decision", decisions.RETRY_ACK, Decision.ACKNOWLEDGE_RETRY),
    ("Ask for approval", decisions.APPROVAL_PLAN, Decision.REQUEST_APPROVAL),
    ("Second person decides", decisions.APPROVAL_DECISION, Decision.DECIDE),
    ("Start a live run", decisions.WORKER_RUN, Decision.RUN_LIVE),
    ("Claim, then send once", decisions.EXECUTION_CLAIM, Decision.RUN_LIVE),
    ("Record the outcome", decisions.EXECUTION_RECORD, Decision.RUN_LIVE),
    ("Write the playbook", decisions.PLAYBOOK, Decision.PLAN_RECOVERY),
    ("Close with evidence", decisions.CLOSURE, Decision.CLOSE_RECOVERY),
)

WIDTH = 1240
MARGIN = 32
GAP = 24
PER_ROW = 5
CARD_W = (WIDTH - 2 * MARGIN - (PER_ROW - 1) * GAP) / PER_ROW
CARD_H = 86
PANEL_W = (WIDTH - 2 * MARGIN - GAP) / 2
LINE = 18
MONO = 7.4  # width of one character of a state

STYLE = """
text { fill: #12171f; font-size: 13px; }
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
.mono, .id { font-family: ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.mono { font-size: 12px; } .id { font-size: 11px; } .quiet { fill: #3c4756; }
.h1 { font-size: 22px; font-weight: 650; } .h2 { font-size: 15px; font-weight: 650; } .h3 { font-weight: 650; }
.no { font-size: 12px; font-weight: 650; fill: #ffffff; } .no-bg { fill: #1c4fb8; }
.ground { fill: #f4f6f8; } .box { fill: #ffffff; stroke: #dbe0e7; }
.state { fill: #eaf0fc; stroke: #1c4fb8; } .final { fill: #e6eaef; stroke: #556174; stroke-width: 2; }
.unknown { fill: #f1e5fa; stroke: #6a1f9c; } .edge { fill: none; stroke: #556174; stroke-width: 1.4; }
.tip { fill: #556174; }
@media (prefers-color-scheme: dark) {
text { fill: #e9edf3; } .quiet { fill: #bac4d1; } .no { fill: #07132b; } .no-bg { fill: #8fb4ff; }
.ground { fill: #0d1117; } .box { fill: #151b23; stroke: #29313c; }
.state { fill: #17233a; stroke: #8fb4ff; } .final { fill: #232b36; stroke: #98a4b5; }
.unknown { fill: #331c46; stroke: #dcb3f9; } .edge { stroke: #98a4b5; } .tip { fill: #98a4b5; }
}
"""


def draw() -> str:
    """The whole picture as SVG text."""
    top = 104.0
    parts = [*_steps(top)]
    top += -(-len(STEPS) // PER_ROW) * (CARD_H + GAP) + 24
    parts.append(_text(MARGIN, top, "States and what may follow them", "h2"))
    top += 16
    panels = [Machine(table) for table in tables()]
    for left, right in zip(panels[::2], [*panels[1::2], None], strict=False):
        height = max(panel.height for panel in (left, right) if panel)
        for place, panel in enumerate((left, right)):
            x = MARGIN + place * (PANEL_W + GAP)
            parts += panel.draw(x, top, height) if panel else _legend(x, top, height)
        top += height + GAP
    height = round(top + MARGIN - GAP)
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(TITLE)}</title>',
        f'<desc id="desc">{escape(describe())}</desc>',
        f"<style>{STYLE}</style>",
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="tip" d="M0 0.500L8 4L0 7.500z"/></marker>',
        f'<rect class="ground" width="{WIDTH}" height="{height}" rx="12"/>',
        _text(MARGIN, 48, TITLE, "h1"),
        _text(MARGIN, 74, SUBTITLE, "quiet"),
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def describe() -> str:
    """The picture in words, for those who do not see it."""
    steps = "; ".join(
        f"{number}. {words} ({roles(act)})" for number, (words, _, act) in enumerate(STEPS, start=1)
    )
    machines = " ".join(
        f"{name(table)}: "
        + ", ".join(
            f"{state} to {' or '.join(other for other in table.moves if other in following and other != state)}"
            for state, following in table.moves.items()
            if following - {state}
        )
        + "."
        for table in tables()
    )
    return f"Steps: {steps}. States: {machines}"


def tables() -> list[Transitions]:
    """Every transition table, in the order of the files."""
    found = [*vars(evidence_transitions).values(), *vars(recovery_transitions).values()]
    return [value for value in found if isinstance(value, Transitions)]


def name(table: Transitions) -> str:
    """What a table is about."""
    return str(table.model._meta.verbose_name).capitalize()


def roles(act: StrEnum) -> str:
    """Roles that may do ``act``."""
    holders = [role for table in ROLE_PERMISSIONS.values() for role, acts in table.items() if act in acts]
    return ", ".join(holders)


# --- steps ------------------------------------------------------------------------------------------------------


def _steps(top: float) -> Iterator[str]:
    """Numbered cards in rows, an arrow from each to the next."""
    for place, (words, kind, act) in enumerate(STEPS):
        row, column = divmod(place, PER_ROW)
        x, y = MARGIN + column * (CARD_W + GAP), top + row * (CARD_H + GAP)
        yield f'<rect class="box" x="{x:g}" y="{y:g}" width="{CARD_W:g}" height="{CARD_H}" rx="8"/>'
        yield f'<circle class="no-bg" cx="{x + 20:g}" cy="{y + 22:g}" r="11"/>'
        yield _text(x + 20, y + 26, str(place + 1), "no", anchor="middle")
        yield _text(x + 38, y + 27, words, "h3")
        yield _text(x + 12, y + 51, f"{kind.prefix}-…", "id quiet")
        yield _text(x + 12, y + 72, roles(act), "quiet")
        if place + 1 == len(STEPS):
            return
        if column + 1 < PER_ROW:
            yield _edge(f"M{x + CARD_W:g} {y + CARD_H / 2:g}h{GAP - 2}")
        else:
            middle = y + CARD_H + GAP / 2
            yield _edge(
                f"M{x + CARD_W / 2:g} {y + CARD_H:g}V{middle:g}H{MARGIN + CARD_W / 2:g}V{y + CARD_H + GAP - 2:g}"
            )


# --- states -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Node:
    """States that nothing tells apart: the same states lead to them and follow them."""

    states: tuple[str, ...]
    final: bool

    @property
    def width(self) -> float:
        """Room for the longest state."""
        return max(len(state) for state in self.states) * MONO + 24

    @property
    def height(self) -> float:
        """Room for all states, one below the other."""
        return len(self.states) * LINE + 12

    @property
    def style(self) -> str:
        """Class of the box."""
        if "outcome_unknown" in self.states:
            return "unknown"
        return "final" if self.final else "state"


@dataclass(frozen=True)
class Spot:
    """Where a node is drawn."""

    node: Node
    column: int
    x: float
    y: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.node.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.node.height

    @property
    def middle(self) -> tuple[float, float]:
        """Its centre."""
        return self.x + self.node.width / 2, self.y + self.node.height / 2


class Machine:
    """One transition table as a panel: columns by distance from the first state."""

    HEAD = 52
    FOOT = 40
    BETWEEN = 30

    def __init__(self, table: Transitions) -> None:
        self.table = table
        self.nodes = _merged(table.moves)
        self.edges = [
            (a, b)
            for a, b in product(self.nodes, repeat=2)
            if any(state in table.moves[_key(table, a.states[0])] for state in b.states)
        ]

    @cached_property
    def columns(self) -> list[Sequence[Node]]:
        """Nodes by their distance from the first one, ordered so that arrows stay short."""
        distance = {self.nodes[0]: 0}
        front = [self.nodes[0]]
        while front:
            node = front.pop(0)
            for follower in [b for a, b in self.edges if a == node and b not in distance]:
                distance[follower] = distance[node] + 1
                front.append(follower)
        layers = [
            [node for node in self.nodes if distance.get(node, 0) == depth]
            for depth in range(max(distance.values()) + 1)
        ]
        arrangements: Iterator[Sequence[Sequence[Node]]] = product(*(permutations(layer) for layer in layers))
        best = min(arrangements, key=self._cost)
        return list(best)

    def _cost(self, layers: Sequence[Sequence[Node]]) -> float:
        row = {node: place - (len(layer) - 1) / 2 for layer in layers for place, node in enumerate(layer)}
        column = {node: depth for depth, layer in enumerate(layers) for node in layer}
        return sum(
            abs(row[a] - row[b]) * (3 if column[a] == column[b] else 2 if column[a] > column[b] else 1)
            - (0.1 * row[a] if column[a] > column[b] else 0)  # a way back runs below everything
            for a, b in self.edges
            if a != b
        )

    @property
    def height(self) -> float:
        """Height of the panel."""
        return self.HEAD + max(_stack(column) for column in self.columns) + self.FOOT

    def draw(self, x: float, y: float, height: float) -> Iterator[str]:
        """The panel at ``x``, ``y``, filled up to ``height``."""
        yield f'<rect class="box" x="{x:g}" y="{y:g}" width="{PANEL_W:g}" height="{height:g}" rx="8"/>'
        yield _text(x + 16, y + 28, name(self.table), "h2")
        y += (height - self.height) / 2
        spots = self._spots(x, y)
        first = spots[self.nodes[0]]
        yield f'<circle class="tip" cx="{first.x - 26:g}" cy="{first.middle[1]:g}" r="4"/>'
        yield _edge(f"M{first.x - 22:g} {first.middle[1]:g}h20")
        floor = y + self.height - 16
        for a, b in self.edges:
            yield _edge(_path(spots[a], spots[b], floor))
        for spot in spots.values():
            node = spot.node
            yield (
                f'<rect class="{node.style}" x="{spot.x:g}" y="{spot.y:g}" width="{node.width:g}" '
                f'height="{node.height:g}" rx="8"/>'
            )
            for line, state in enumerate(node.states):
                yield _text(spot.middle[0], spot.y + 19 + line * LINE, state, "mono", anchor="middle")

    def _spots(self, x: float, y: float) -> dict[Node, Spot]:
        widths = [max(node.width for node in column) for column in self.columns]
        room = PANEL_W - 48 - 16 - sum(widths)
        gap = min(110.0, room / max(1, len(widths) - 1))
        body = max(_stack(column) for column in self.columns)
        left, spots = x + 48 + (room - gap * (len(widths) - 1)) / 2, {}
        for depth, (column, width) in enumerate(zip(self.columns, widths, strict=True)):
            down = y + self.HEAD + (body - _stack(column)) / 2
            for node in column:
                spots[node] = Spot(node, depth, left + (width - node.width) / 2, down)
                down += node.height + self.BETWEEN
            left += width + gap
        return spots


def _merged(moves: Mapping[StrEnum, frozenset[StrEnum]]) -> list[Node]:
    """States in the table's order; those with the same ways in and out together."""
    groups: dict[tuple[frozenset[str], frozenset[str]], list[str]] = {}
    for place, (state, following) in enumerate(moves.items()):
        sources = frozenset(other for other, after in moves.items() if state in after)
        # The first state stays alone: everything begins there.
        key = (frozenset(following), sources) if place else (frozenset({"first"}), sources)
        groups.setdefault(key, []).append(state.value)
    final = {state.value for state, following in moves.items() if not following}
    return [Node(tuple(states), set(states) <= final) for states in groups.values()]


def _key(table: Transitions, state: str) -> StrEnum:
    return next(key for key in table.moves if key == state)


def _stack(column: Sequence[Node]) -> float:
    return sum(node.height for node in column) + Machine.BETWEEN * (len(column) - 1)


def _path(a: Spot, b: Spot, floor: float) -> str:
    """The way of an arrow: to itself, up or down, onwards, or back below everything."""
    (ax, ay), (bx, by) = a.middle, b.middle
    if a == b:
        x = a.right - 22
        return f"M{x:g} {a.y:g}c-4 -24 26 -24 16 -2"
    if a.column == b.column:
        return f"M{ax:g} {a.bottom:g}V{b.y - 2:g}" if by > ay else f"M{ax:g} {a.y:g}V{b.bottom + 2:g}"
    if a.column < b.column:
        reach = (b.x - a.right) / 2
        return f"M{a.right:g} {ay:g}C{a.right + reach:g} {ay:g} {b.x - reach:g} {by:g} {b.x - 2:g} {by:g}"
    start = ax - a.node.width / 4
    return f"M{start:g} {a.bottom:g}C{start:g} {floor + 6:g} {bx:g} {floor + 6:g} {bx:g} {b.bottom + 2:g}"


def _legend(x: float, y: float, height: float) -> Iterator[str]:
    """How to read the panels, where there is room for it."""
    yield f'<rect class="box" x="{x:g}" y="{y:g}" width="{PANEL_W:g}" height="{height:g}" rx="8"/>'
    yield _text(x + 16, y + 28, "How to read this", "h2")
    lines = (
        ("state", "The dot marks the beginning, an arrow a move that may follow."),
        ("final", "Nothing follows. States in one box share their ways in and out."),
        ("unknown", "Nothing is sent until somebody or something has settled it."),
    )
    for place, (style, words) in enumerate(lines):
        top = y + 48 + place * 32
        yield f'<rect class="{style}" x="{x + 16:g}" y="{top:g}" width="28" height="20" rx="6"/>'
        yield _text(x + 56, top + 15, words, "quiet")


def _text(x: float, y: float, words: str, style: str, *, anchor: str = "") -> str:
    more = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text class="{style}" x="{x:g}" y="{y:g}"{more}>{escape(words)}</text>'


def _edge(path: str) -> str:
    return f'<path class="edge" d="{path}" marker-end="url(#tip)"/>'
