"""The one redactor: what is stored or shown passes it, and the service's log does by itself (P18, W28).

It knows secrets by value, whatever the header, field or URL is called in which they turn up, and in the usual
spellings of each. What a receiver makes of a secret beyond those (a digest, another alphabet) it cannot know.
"""

import base64
import binascii
import contextlib
import html
import json
import logging
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, TextIO
from urllib.parse import quote, quote_plus, unquote, urlsplit

from evidence.connectors import references
from evidence.connectors.references import MIN_SECRET

REDACTED = "[redacted]"
# Pieces of a secret (of a path, a query, a key over several lines, an encoding) count from this length on: shorter
# ones are ordinary words.
MIN_PIECE = 12
# Digits of an encoding say less than letters of a text: fewer bytes would be found in any digest.
MIN_ENCODED = 8
# Addresses and headers whose forms are kept for the next order.
MAX_OTHERS = 256
# RFC 3986 §3.2.1: name and password in front of a host, in any URL, known or not.
_USERINFO = re.compile(r"(://)[^\s/?#@:\"'<>]{0,128}:[^\s/?#@\"'<>]{1,256}(@)")
_BASIC = re.compile(r"(?i)basic\s+([A-Za-z0-9+/=_-]+)")
# How Django writes JSON into a page.
_IN_SCRIPT = {ord(">"): "\\u003E", ord("<"): "\\u003C", ord("&"): "\\u0026"}


def redact(text: str, also: Iterable[str] = (), plain: Iterable[str] = (), *, cut: bool = False) -> str:
    """``text`` without any secret that this process knows, nor those in ``also``.

    ``plain`` is looked for as it is: what differs from order to order is no secret for long. ``cut``: the text was
    broken off at its end, where a part of a secret may stand.
    """
    known = _of_process.forms()
    more = [_of_process.forms_of(value) for value in also]
    as_is = [value for value in plain if len(value) >= MIN_SECRET]
    found = {form for forms in (known, *more, as_is) for form in forms if form in text}
    if found:
        text = _without(text, found)
    if cut:
        text = _without_beginning(text, known.union(*more))
    if "://" in text and "@" in text:
        text = _USERINFO.sub(rf"\1{REDACTED}\2", text)
    return text


def clean(value: Any, also: Iterable[str] = ()) -> Any:
    """A JSON value with every text in it redacted, names of fields too."""
    if isinstance(value, str):
        return redact(value, also)
    if isinstance(value, Mapping):
        return {clean(key, also): clean(item, also) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item, also) for item in value]
    return value


def spellings(secrets: Iterable[str]) -> frozenset[str]:
    """Each secret and what is told of it apart, in every form in which it is looked for."""
    parts = {part for secret in secrets if secret for part in (secret, *pieces(secret))}
    return frozenset(form for part in parts if len(part) >= MIN_SECRET for form in forms(part))


def pieces(secret: str) -> Iterator[str]:
    """Parts that give a secret away by themselves.

    Of an ``Authorization`` value what stands behind the scheme, and the password of Basic (RFC 7617); of a URL its
    host, path and query, and what is long in them; of several lines each.
    """
    lines = secret.splitlines()
    if len(lines) > 1:
        yield from (line.strip() for line in lines if len(line.strip()) >= MIN_PIECE)
        return
    words = secret.split(None, 1)
    if words and "://" in words[0]:
        yield from _url_pieces(secret)
    elif len(words) == 2:
        yield words[1]
        yield words[1].split()[-1]
    if secret.startswith("whsec_"):
        with contextlib.suppress(binascii.Error, ValueError):
            # The key itself, as it is handed to what signs.
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
            yield key.decode("utf-8", "surrogateescape")
    if match := _BASIC.fullmatch(secret):
        try:
            user, colon, password = base64.b64decode(match[1], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return
        yield f"{user}{colon}{password}"
        yield password


def url_parts(url: str) -> tuple[str, ...]:
    """The parts of a URL that say where something goes: whole, host and port, path with query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return (url,)
    target = parts._replace(scheme="", netloc="", fragment="").geturl()
    return tuple(part for part in (url, parts.netloc, target) if len(part) >= MIN_SECRET)


def _url_pieces(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return
    yield parts.netloc
    user, password = parts.username or "", parts.password or ""
    yield password
    # A token may stand in the place of a name; a name beside a password is any word, like that of a database's user.
    if not password or len(user) >= MIN_PIECE:
        yield user
    if "." in host:  # a single word could be any word
        yield host
    long = (parts.path, *url_parts(url), *re.split(r"[/?&=;]", f"{parts.path}?{parts.query}"))
    yield from (form for part in long if len(part) >= MIN_PIECE for form in (part, unquote(part)))


def forms(part: str) -> Iterator[str]:
    """Every usual spelling of a text: percent-encoded, in JSON, in HTML, as Python writes it, in hex and base64."""
    data = part.encode("utf-8", "surrogateescape")
    yield part
    for safe in ("", "/", "/:?@!$&'()*+,;="):
        encoded = quote(data, safe=safe)
        yield encoded
        # The two digits behind each % in lower case (RFC 3986 §2.1: they mean the same).
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), encoded)
    yield quote_plus(data)
    once = {json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]}
    once |= {form.replace("/", "\\/") for form in once}
    written = {*once, *(json.dumps(form)[1:-1] for form in once), repr(part)[1:-1]}
    yield from written
    yield part.translate(_IN_SCRIPT)
    for form in {part, *once}:
        escaped = html.escape(form)
        yield escaped
        yield html.escape(form, quote=False)
        yield escaped.replace("&#x27;", "&#39;")
    if len(data) >= MIN_ENCODED:
        yield repr(data)[2:-1]
        yield data.hex()
        yield data.hex().upper()
        for encoded in _base64(data):
            yield encoded
            yield encoded.translate(str.maketrans("+/", "-_"))


def _base64(data: bytes) -> Iterator[str]:
    """The characters that ``data`` decides alone, wherever it begins within something longer (RFC 4648 §4)."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + data).decode()
        yield encoded[-(-8 * before // 6) : 8 * (before + len(data)) // 6]


def _without(text: str, found: Iterable[str]) -> str:
    """``text`` with every place of what was found in it replaced; where they overlap, all of them at once."""
    spans = []
    for form in found:
        at = text.find(form)
        while at >= 0:
            spans.append((at, at + len(form)))
            at = text.find(form, at + 1)
    parts, done = [], 0
    for start, end in sorted(spans):
        if start >= done:
            parts += [text[done:start], REDACTED]
        done = max(done, end)
    return "".join([*parts, text[done:]])


def _without_beginning(text: str, forms: Iterable[str]) -> str:
    """``text`` without a beginning of one of ``forms`` at its end."""
    longest = 0
    for form in forms:
        for length in range(min(len(form) - 1, len(text)), max(longest, MIN_SECRET - 1), -1):
            if text.endswith(form[:length]):
                longest = length
                break
    return text[:-longest] + REDACTED if longest else text


class _Process:
    """Forms of what this process knows, and of what came with orders lately; forgotten when the former changes."""

    def __init__(self) -> None:
        self._known: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
        self._others: dict[str, frozenset[str]] = {}

    def forms(self) -> frozenset[str]:
        secrets = references.secrets()
        known = self._known
        if known[0] is not secrets:
            known = self._known = (secrets, spellings(secrets))
            self._others = {}
        return known[1]

    def forms_of(self, value: str) -> frozenset[str]:
        """Of an address or a header, which are the same from one order to the next."""
        others = self._others
        forms = others.get(value)
        if forms is None:
            if len(others) >= MAX_OTHERS:
                others = self._others = {}
            forms = others[value] = spellings((value,))
        return forms


_of_process = _Process()


# --- what writes by itself ------------------------------------------------------------------------------------------


def install() -> None:
    """Have every log record made in this process pass the redactor, whatever logger and handler it goes to.

    Where records are made rather than in one handler: libraries and web servers bring handlers of their own.
    """
    factory = logging.getLogRecordFactory()
    if not (isinstance(factory, partial) and factory.func is _record):
        logging.setLogRecordFactory(partial(_record, factory))


def _record(factory: Any, *args: Any, **kwargs: Any) -> logging.LogRecord:
    record: logging.LogRecord = factory(*args, **kwargs)
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - logging would print message and arguments itself, as they are
        text = ""
        record.msg, record.args = redact(f"{record.msg} (with arguments that do not fit)"), ()
    if (hidden := redact(text)) != text:
        record.msg, record.args = hidden, ()
    if record.exc_info and record.exc_info[1] is not None:
        text = format_exception(record.exc_info[1], record.exc_info[2])
        if (hidden := redact(text)) != text:
            # The exception itself would be written by who formats it anew.
            record.exc_text, record.exc_info = hidden, None
    if record.stack_info:
        record.stack_info = redact(record.stack_info)
    return record


def format_exception(error: BaseException, at: TracebackType | None) -> str:
    """The traceback as logging writes it."""
    return "".join(traceback.format_exception(type(error), error, at)).rstrip("\n")


class Stream:
    """A text stream that redacts what is written to it: standard error of a command, with its last words."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text`` without secrets; its whole length counts as written."""
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of them."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
