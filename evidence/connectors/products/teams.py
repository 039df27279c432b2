"""Microsoft Teams: an Adaptive Card to a webhook of the Workflows app.

Sources: Microsoft Learn, "Create incoming webhooks with Workflows for Microsoft Teams", "Create and send messages"
(answers of the older connectors), "Limits and specifications for Microsoft Teams" (28 KB a message); Adaptive
Cards, "Schema explorer" 1.4.
"""

import re
from typing import Any

import rfc8785

from evidence.connectors.failures import classify_status
from evidence.connectors.products import brief
from evidence.connectors.products.adapter import Adapter
from evidence.connectors.specs import ConnectorSettings
from evidence.enums import Assurance, FailureClass

CARD_TYPE = "application/vnd.microsoft.card.adaptive"
MAX_BODY = 28 * 1024
_TITLE, _TEXT, _LINE, _LINES = 300, 200, 120, 15
_COLORS = {"critical": "Attention", "warning": "Warning", "healthy": "Good"}
# An older connector says 200 and names in its text what the chat service really answered.
_INNER = re.compile(r"HTTP error (\d{3})")


def render(event: dict[str, Any], _settings: ConnectorSettings, message_id: str) -> tuple[bytes, str]:
    """The event in brief as a card: title, counts, whose answer is missing, ids, how to check.

    Never the whole event: a message has 28 KB. All text is in runs, which know no Markdown, so nothing in an
    event becomes a link or a mention.
    """
    seen = brief.of(event, message_id)
    title = brief.clip(seen.title, _TITLE)
    body = [_block(_run(title, size="Large", weight="Bolder", color=_COLORS.get(seen.level, "Default")))]
    body += [_fact(label, value) for label, value in seen.facts]
    if seen.waiting:
        body.append(_block(_run("No answer yet:", weight="Bolder"), spacing="Medium"))
        body += [
            _block(_run(one), spacing="None") for one in brief.listed(seen.waiting, most=_LINES, each=_LINE)
        ]
    body += [_fact(label, value, isSubtle=True) for label, value in seen.ids]
    body.append(_block(_run(brief.how_to_check(seen), isSubtle=True), spacing="Medium"))
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "fallbackText": _shown(title),
        "body": body,
    }
    message: dict[str, Any] = {
        "type": "message",
        "attachments": [{"contentType": CARD_TYPE, "contentUrl": None, "content": card}],
    }
    return rfc8785.dumps(message), "application/json"


def recognise(status: int, body: bytes) -> Assurance | FailureClass:
    """202 is acceptance by a workflow; of an older connector it is 200 and nothing, or 1."""
    if failure := classify_status(status):
        return failure
    if status == 202:
        return Assurance.ACCEPTED
    said = body.decode("utf-8", "replace").strip()
    if status == 200 and said in ("", "1"):
        return Assurance.ACCEPTED
    inner = _INNER.search(said)
    return (classify_status(int(inner[1])) if inner else None) or FailureClass.BAD_RESPONSE


def _block(*runs: dict[str, Any], **look: Any) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": list(runs), **look}


def _run(text: str, **look: Any) -> dict[str, Any]:
    return {"type": "TextRun", "text": _shown(text), **look}


def _fact(label: str, value: str, **look: Any) -> dict[str, Any]:
    runs = (_run(f"{label}: ", weight="Bolder", **look), _run(brief.clip(value, _TEXT), **look))
    return _block(*runs, spacing="None")


def _shown(text: str) -> str:
    """Apart, because a card computes what stands in double braces, dates for example."""
    return text.replace("{{", "{ {")


def mark(_settings: ConnectorSettings, message_id: str) -> str:
    """What stands among the ids of the message."""
    return f"Message: {message_id}"


ADAPTER = Adapter(
    render=render,
    recognise=recognise,
    assurance=Assurance.ACCEPTED,
    earned="The workflow answered with 202: it has the card and posts it. Whether its later steps succeed is in the "
    "workflow's own run history. The card is a summary; the event itself is not there.",
    schemes=("https",),
    max_body=MAX_BODY,
    secret_url=True,
    credentials=(),
    mark=mark,
    against_asking=("a workflow's webhook cannot read the chat",),
)
