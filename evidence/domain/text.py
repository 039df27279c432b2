"""Rules for text that people send (CONTRACT, row "text"), and for keys and references made of it."""

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from evidence.errors import InvalidInput

MAX_REFERENCE = 200
MAX_NOTES = 4_000
MAX_NAME = 120

CONNECTOR_KEY = re.compile(r"[a-z0-9_]{1,40}")
SHA256 = re.compile(r"[0-9a-f]{64}")

# Categories of what changes a text without being seen: controls, surrogates, line and paragraph separators, and
# every format character (Cf: bidi, zero-width, soft hyphen, byte order mark). Cf goes as a whole: the few of it
# that are visible, signs around Arabic numbers, are not worth a list that each new Unicode makes incomplete.
_REFUSED = frozenset(("Cc", "Cs", "Cf", "Zl", "Zp"))
# Tags, of which some have no category yet (Unicode 16, section 23.9).
_TAGS = range(0xE0000, 0xE0080)


def clean(value: str, *, field: str, limit: int, lines: bool = False) -> str:
    """``value`` in NFC without outer white space; ``lines`` allows LF and TAB.

    Raises ``InvalidInput`` naming ``field`` for control and format characters (bidi, zero-width, tags), lone
    surrogates and more than ``limit`` characters; the refusal never repeats the value.
    """
    text = unicodedata.normalize("NFC", value).strip()
    allowed = "\n\t" if lines else ""
    if lines:
        text = text.replace("\r\n", "\n")
    for character in text:
        refused = unicodedata.category(character) in _REFUSED or ord(character) in _TAGS
        if refused and character not in allowed:
            raise _invalid(field, f"Holds the character U+{ord(character):04X}, which is not allowed here.")
    if len(text) > limit:
        raise _invalid(field, f"Has {len(text)} characters; {limit} are allowed.")
    return text


def word(value: str) -> str:
    """How states and connector keys are compared: trimmed, lower case, ``-`` as ``_``."""
    return value.strip().lower().replace("-", "_")


def connector_key(value: str, *, field: str = "provider") -> str:
    """A connector key in its one form; ``InvalidInput`` when it cannot be one."""
    key = word(value)
    if not CONNECTOR_KEY.fullmatch(key):
        raise _invalid(field, "A connector key has 1 to 40 of a-z, 0-9 and _.")
    return key


def external_ref(value: str, *, field: str = "external_ref") -> str:
    """A ticket or change reference: ``SYSTEM:KEY`` or a plain key. A URL is refused with that hint."""
    text = clean(value, field=field, limit=MAX_REFERENCE)
    if urlsplit(text).scheme in ("http", "https"):
        raise _invalid(field, "Give the reference as SYSTEM:KEY or a plain key, not as a URL.")
    return text


def digest(value: str, *, field: str) -> str:
    """A SHA-256 as 64 hex digits in lower case, or nothing; ``InvalidInput`` for anything else."""
    text = clean(value, field=field, limit=MAX_REFERENCE).lower()
    if text and not SHA256.fullmatch(text):
        raise _invalid(field, "A digest is a SHA-256: 64 hex digits.")
    return text


def span(time: timedelta) -> str:
    """A length of time in words: minutes, hours with minutes, days."""
    minutes = int(time.total_seconds() // 60)
    if minutes < 1:
        return "less than a minute"
    hours, rest = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days"
    return " ".join(filter(None, (f"{hours} h" if hours else "", f"{rest} min" if rest else "")))


def moment(at: datetime) -> str:
    """A time in a sentence that may be read on any other day."""
    at = at.astimezone(UTC)
    return f"{at.day} {at:%B %Y %H:%M:%S} UTC"


def _invalid(field: str, sentence: str) -> InvalidInput:
    return InvalidInput(f"{field}: {sentence}", code="invalid_text", errors={field: [sentence]})
