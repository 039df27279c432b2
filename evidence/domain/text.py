"""Rules for text that people send (CONTRACT, row "text"), and for keys and references made of it."""

import re
import unicodedata
from urllib.parse import urlsplit

from evidence.errors import InvalidInput

MAX_REFERENCE = 200
MAX_NOTES = 4_000
MAX_NAME = 120

CONNECTOR_KEY = re.compile(r"[a-z0-9_]{1,40}")

# Controls that change what a reader sees: bidi embeddings and isolates, marks, zero-width characters,
# line and paragraph separators, the byte order mark (Unicode 16, sections 23.2 and 23.3).
_INVISIBLE = frozenset("\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u2060\ufeff") | {
    chr(code)
    for first, last in ((0x202A, 0x202E), (0x2061, 0x2069), (0x206A, 0x206F))
    for code in range(first, last + 1)
}


def clean(value: str, *, field: str, limit: int, lines: bool = False) -> str:
    """``value`` in NFC without outer white space; ``lines`` allows LF and TAB.

    Raises ``InvalidInput`` naming ``field`` for control, bidi and zero-width characters, lone surrogates
    and more than ``limit`` characters; the refusal never repeats the value.
    """
    text = unicodedata.normalize("NFC", value).strip()
    allowed = "\n\t" if lines else ""
    if lines:
        text = text.replace("\r\n", "\n")
    for character in text:
        category = unicodedata.category(character)
        if (category == "Cc" and character not in allowed) or category == "Cs" or character in _INVISIBLE:
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


def _invalid(field: str, sentence: str) -> InvalidInput:
    return InvalidInput(f"{field}: {sentence}", code="invalid_text", errors={field: [sentence]})
