"""Slack's incoming webhooks as they are published, with Block Kit's rules as a JSON schema.

Sources: Slack, "Sending messages using incoming webhooks", "Changes to errors for incoming webhooks", "Block Kit
reference" (blocks: header, section, context; composition objects: text).
"""

from typing import Any

from jsonschema import Draft202012Validator

from tests.evidence.connectors.fakes.web import Web, is_json, line, parsed, units
from tests.evidence.connectors.receiver import Request, answer

PATH = "/services/T01234567/B01234567/s3cr3tS3cr3tS3cr3tS3cr3t"


def text_object(limit: int, *kinds: str) -> dict[str, Any]:
    """A text object: 1 to 3,000 characters, fewer where its block says so; emoji of plain text alone."""
    return {
        "type": "object",
        "required": ["type", "text"],
        "properties": {
            "type": {"enum": list(kinds)},
            "text": {"type": "string", "minLength": 1, "maxLength": limit},
            "emoji": {"type": "boolean"},
            "verbatim": {"type": "boolean"},
        },
        "additionalProperties": False,
        "if": {"properties": {"type": {"const": "mrkdwn"}}},
        "then": {"properties": {"emoji": False}},
        "else": {"properties": {"verbatim": False}},
    }


def block(kind: str, required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["type", *required],
        "properties": {
            "type": {"const": kind},
            "block_id": {"type": "string", "maxLength": 255},
            **properties,
        },
        "additionalProperties": False,
    }


BOTH = ("plain_text", "mrkdwn")
BLOCKS = {
    # "Header block": plain text of at most 150 characters.
    "header": block("header", ["text"], text=text_object(150, "plain_text")),
    # "Section block": text of at most 3,000 characters; at most 10 fields of at most 2,000; one of the two.
    "section": {
        **block(
            "section",
            [],
            text=text_object(3_000, *BOTH),
            fields={"type": "array", "minItems": 1, "maxItems": 10, "items": text_object(2_000, *BOTH)},
        ),
        "anyOf": [{"required": ["text"]}, {"required": ["fields"]}],
    },
    # "Context block": at most 10 elements, images or texts.
    "context": block(
        "context",
        ["elements"],
        elements={"type": "array", "minItems": 1, "maxItems": 10, "items": text_object(3_000, *BOTH)},
    ),
    "divider": block("divider", []),
}
MESSAGE = {
    "type": "object",
    "properties": {
        # "chat.postMessage": text above 40,000 characters is cut; 4,000 are recommended.
        "text": {"type": "string", "minLength": 1, "maxLength": 4_000},
        "mrkdwn": {"type": "boolean"},
        "unfurl_links": {"type": "boolean"},
        "unfurl_media": {"type": "boolean"},
        # "Reference: blocks": up to 50 blocks in a message.
        "blocks": {
            "type": "array",
            "minItems": 1,
            "maxItems": 50,
            "items": {
                "type": "object",
                "required": ["type"],
                "properties": {"type": {"enum": list(BLOCKS)}},
                "allOf": [
                    {"if": {"properties": {"type": {"const": kind}}}, "then": rule}
                    for kind, rule in BLOCKS.items()
                ],
            },
        },
    },
    "additionalProperties": False,
}
RULES = Draft202012Validator(MESSAGE)


def problems(message: Any) -> list[str]:
    """What Slack would not take of a message; characters are counted the strictest way."""
    found = [error.message[:200] for error in RULES.iter_errors(message)]
    if not found:
        limits = {"header": 150, "section": 2_000, "context": 3_000}
        for part in message.get("blocks", ()):
            texts = [part.get("text"), *part.get("fields", ()), *part.get("elements", ())]
            for said in filter(None, texts):
                limit = (
                    3_000 if said is part.get("text") and part["type"] == "section" else limits[part["type"]]
                )
                found += ["too long"] if units(said["text"]) > limit else []
    return found


class Slack(Web):
    """One webhook."""

    def __init__(self) -> None:
        super().__init__()
        self.archived = self.prohibited = False

    def reply(self, request: Request) -> bytes:
        method, path, query = line(request)
        if method != "POST" or query or path != PATH:
            return answer(404, b"no_service" if path.startswith(PATH.rsplit("/", 1)[0]) else b"no_team")
        if self.prohibited:
            return answer(403, b"action_prohibited")
        if self.archived:
            return answer(410, b"channel_is_archived")
        message = parsed(request.body)
        if not is_json(request) or not isinstance(message, dict):
            return answer(400, b"invalid_payload")
        if not message.get("text") and not message.get("blocks"):
            return answer(400, b"no_text")
        if problems(message):
            return answer(400, b"invalid_blocks")
        self.taken.append(message)
        return answer(200, b"ok", "Content-Type: text/html")
