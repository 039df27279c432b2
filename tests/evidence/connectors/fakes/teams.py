"""A webhook of Teams' Workflows app as it is published, with the rules of the card's elements as a JSON schema.

Sources: Microsoft Learn, "Create incoming webhooks with Workflows for Microsoft Teams", "Limits and specifications
for Microsoft Teams", "Secure inbound calls to workflows" (SAS signature); Adaptive Cards, "Schema explorer" 1.4
(AdaptiveCard, RichTextBlock, TextRun).
"""

from typing import Any

from jsonschema import Draft202012Validator

from tests.evidence.connectors.fakes.web import Web, is_json, line, parsed, reply_json
from tests.evidence.connectors.receiver import Request, answer

WORKFLOW = "0123456789abcdef0123456789abcdef"
PATH = f"/workflows/{WORKFLOW}/triggers/manual/paths/invoke"
SIGNATURE = "s3cr3tS3cr3tS3cr3t-s3cr3tS3cr3tS3cr3t_S3cr3"
QUERY = f"api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig={SIGNATURE}"
CARD_TYPE = "application/vnd.microsoft.card.adaptive"


def element(kind: str, required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["type", *required],
        "properties": {"type": {"const": kind}, **properties},
        "additionalProperties": False,
    }


def one_of(words: str) -> dict[str, Any]:
    return {"enum": words.split()}


SPACING = one_of("Default None Small Medium Large ExtraLarge Padding")
TEXT_RUN = element(
    "TextRun",
    ["text"],
    text={"type": "string"},
    color=one_of("Default Dark Light Accent Good Warning Attention"),
    fontType=one_of("Default Monospace"),
    highlight={"type": "boolean"},
    isSubtle={"type": "boolean"},
    italic={"type": "boolean"},
    size=one_of("Default Small Medium Large ExtraLarge"),
    strikethrough={"type": "boolean"},
    underline={"type": "boolean"},
    weight=one_of("Default Lighter Bolder"),
)
BLOCK = element(
    "RichTextBlock",
    ["inlines"],
    inlines={"type": "array", "minItems": 1, "items": TEXT_RUN},
    horizontalAlignment=one_of("Left Center Right"),
    spacing=SPACING,
    separator={"type": "boolean"},
    id={"type": "string"},
    isVisible={"type": "boolean"},
)
CARD = element(
    "AdaptiveCard",
    ["version", "body"],
    **{"$schema": {"const": "http://adaptivecards.io/schemas/adaptive-card.json"}},
    # "Cards reference": Teams shows versions up to 1.5.
    version=one_of("1.0 1.1 1.2 1.3 1.4 1.5"),
    fallbackText={"type": "string"},
    body={"type": "array", "minItems": 1, "items": BLOCK},
)
MESSAGE = {
    "type": "object",
    "required": ["type", "attachments"],
    "properties": {
        "type": {"const": "message"},
        "attachments": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["contentType", "content"],
                "properties": {
                    "contentType": {"const": CARD_TYPE},
                    "contentUrl": {"type": "null"},
                    "content": CARD,
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}
RULES = Draft202012Validator(MESSAGE)


def problems(message: Any) -> list[str]:
    """What is wrong with a message by the published elements: missing and unknown properties, other values."""
    return [error.message[:200] for error in RULES.iter_errors(message)]


class Teams(Web):
    """One workflow, and what it posted."""

    def reply(self, request: Request) -> bytes:
        method, path, query = line(request)
        if method != "POST" or path != PATH:
            return self.error(404, "WorkflowNotFound")
        if (
            query.get("sig") != SIGNATURE
            or query.get("sp") != "/triggers/manual/run"
            or query.get("sv") != "1.0"
        ):
            return self.error(401, "DirectApiAuthorizationRequired")
        # "Limits and specifications": a message has about 28 KB.
        if len(request.body) > 28 * 1024:
            return self.error(413, "RequestEntityTooLarge")
        message = parsed(request.body)
        if not is_json(request) or problems(message):
            return self.error(400, "TriggerInputSchemaMismatch")
        self.taken.append(message)
        return answer(202, b"")

    @staticmethod
    def error(status: int, code: str) -> bytes:
        return reply_json(status, {"error": {"code": code, "message": "refused"}})
