"""The card that Teams gets, drawn by Microsoft's own renderer (npm: adaptivecards) in a browser."""

import json
from pathlib import Path
from typing import Any

import pytest

from evidence.connectors.products import PRODUCTS
from evidence.connectors.specs import ConnectorSettings
from evidence.enums import Product
from tests.browser.console import chromium
from tests.evidence.connectors.sample import event

RENDERER = Path("build/cards/adaptivecards.min.js")
HOSTILE = "[click](https://evil.example) **bold** <img src=x onerror=alert(1)> {{DATE(2026-01-01T00:00:00Z)}}"
DRAW = """
message => {
    const problems = [];
    const context = new AdaptiveCards.SerializationContext();
    const card = new AdaptiveCards.AdaptiveCard();
    card.parse(message.attachments[0].content, context);
    for (let n = 0; n < context.eventCount; n++) problems.push(context.getEventAt(n).message);
    problems.push(...card.validateProperties().validationEvents.map(one => one.message));
    const drawn = card.render();
    document.body.replaceChildren(drawn);
    return {
        problems,
        text: drawn.innerText,
        tags: [...new Set([...drawn.querySelectorAll('*')].map(one => one.tagName.toLowerCase()))],
        elements: card.getItemCount(),
    };
}
"""

pytestmark = pytest.mark.browser


@pytest.fixture
def renderer() -> str:
    if not RENDERER.exists():
        pytest.skip("Microsoft's card renderer is not here: run `make setup-cards` (needs npm)")
    return RENDERER.read_text()


def card(told: dict[str, Any]) -> dict[str, Any]:
    settings = ConnectorSettings(key="teams", product=Product.TEAMS)
    body, _ = PRODUCTS[Product.TEAMS].render(told, settings, "case.teams")
    message: dict[str, Any] = json.loads(body)
    return message


TOLD = {
    "usual": event(),
    "no routes": event(0),
    "many routes": event(200),
    "hostile": event(40, text=HOSTILE),
    "hardly anything": {"title": "x"},
    "nothing": {},
}


def test_cards_are_drawn_as_they_were_meant(renderer: str) -> None:
    messages = {name: card(told) for name, told in TOLD.items()}
    broken = card({})
    broken["attachments"][0]["content"]["body"].append({"type": "TextBlok"})
    with chromium() as browser:
        page = browser.new_page()
        opened: list[str] = []
        page.on("dialog", lambda dialog: opened.append(dialog.message) or dialog.dismiss())
        page.add_script_tag(content=renderer)
        drawn = {name: page.evaluate(DRAW, message) for name, message in messages.items()}
        assert page.evaluate(DRAW, broken)["problems"]
    for name, message in messages.items():
        blocks = message["attachments"][0]["content"]["body"]
        assert drawn[name]["problems"] == [], name
        assert drawn[name]["elements"] == len(blocks), name
        shown = " ".join(drawn[name]["text"].split())
        for block in blocks:
            # Nothing is formatted away, linked or computed: every text stands there as it was written.
            written = "".join(run["text"] for run in block["inlines"])
            assert " ".join(written.split()) in shown, name
        assert set(drawn[name]["tags"]) <= {"div", "span", "p"}, name
    assert opened == []
