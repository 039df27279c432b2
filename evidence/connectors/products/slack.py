"""Slack: a message of a few blocks to an incoming webhook.

Sources: Slack, "Sending messages using incoming webhooks", "Changes to errors for incoming webhooks", "Block Kit
reference" (50 blocks, a header's 150 characters, ten fields of 2,000, a text's 3,000), "Formatting text".
"""

from typing import Any

import rfc8785

from evidence.connectors.failures import classify_status
from evidence.connectors.products import brief
from evidence.connectors.products.adapter import Adapter
from evidence.connectors.specs import ConnectorSettings
from evidence.enums import Assurance, FailureClass

_MAX_HEADER, _MAX_TEXT = 150, 3_000
_MAX_FIELDS, _MAX_ELEMENTS = 10, 10
_FIELD, _LINE, _LINES = 200, 120, 20

# What an answer's text says better than its status does.
_ERRORS = {
    **dict.fromkeys(
        (
            *("channel_is_archived", "channel_not_found", "no_active_hooks", "no_service", "no_service_id"),
            *("no_team", "team_disabled", "user_not_found"),
        ),
        FailureClass.GONE,
    ),
    **dict.fromkeys(
        ("action_prohibited", "invalid_token", "posting_to_general_channel_denied"), FailureClass.AUTH
    ),
    "rate_limited": FailureClass.THROTTLED,
}


def render(event: dict[str, Any], _settings: ConnectorSettings, message_id: str) -> tuple[bytes, str]:
    """The event in brief: title, counts, whose answer is missing, ids, and how to check. Never the whole event.

    Long lists and texts are cut to what Slack takes, and say so. Everything is plain text: nothing in an event
    becomes a mention, a link or formatting.
    """
    seen = brief.of(event, message_id)
    blocks: list[dict[str, Any]] = [{"type": "header", "text": _plain(seen.title, _MAX_HEADER)}]
    if seen.facts:
        fields = [_plain(f"{label}\n{value}", _FIELD) for label, value in seen.facts[:_MAX_FIELDS]]
        blocks.append({"type": "section", "fields": fields})
    if seen.waiting:
        lines = ["No answer yet:", *brief.listed(seen.waiting, most=_LINES, each=_LINE)]
        blocks.append({"type": "section", "text": _plain("\n".join(lines), _MAX_TEXT)})
    ids = [_plain(f"{label}: {value}", _FIELD) for label, value in seen.ids]
    blocks.append(
        {
            "type": "context",
            "elements": [*ids[: _MAX_ELEMENTS - 1], _plain(brief.how_to_check(seen), _MAX_TEXT)],
        }
    )
    message = {
        # For notifications and for readers of blocks that cannot show them.
        "text": _plain(seen.title, _MAX_TEXT)["text"],
        "mrkdwn": False,
        "blocks": blocks,
        "unfurl_links": False,
        "unfurl_media": False,
    }
    return rfc8785.dumps(message), "application/json"


def recognise(status: int, body: bytes) -> Assurance | FailureClass:
    """200 with the word ``ok`` is acceptance; an error is named by its text, else by its status."""
    said = body[:100].decode("utf-8", "replace").strip()
    failure = classify_status(status)
    if failure is None:
        return Assurance.ACCEPTED if said == "ok" else _ERRORS.get(said, FailureClass.BAD_RESPONSE)
    return failure if failure is FailureClass.UNAVAILABLE else _ERRORS.get(said, failure)


def _plain(text: str, limit: int) -> dict[str, Any]:
    """A text object that is shown as it is written, cut so that it fits with its three escapes."""
    kept = brief.clip(text, limit)
    while brief.width(escaped := _escape(kept)) > limit:
        kept = brief.clip(kept, brief.width(kept) - max(1, (brief.width(escaped) - limit) // 5))
    return {"type": "plain_text", "text": escaped, "emoji": False}


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def mark(_settings: ConnectorSettings, message_id: str) -> str:
    """What stands among the ids of the message."""
    return f"Message: {message_id}"


ADAPTER = Adapter(
    render=render,
    recognise=recognise,
    assurance=Assurance.ACCEPTED,
    earned="Slack answered 200 and “ok”: the message is posted. It is a summary; the event itself is not there.",
    schemes=("https",),
    secret_url=True,
    credentials=(),
    mark=mark,
    against_asking=("an incoming webhook cannot read its channel",),
)
