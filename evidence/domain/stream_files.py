"""What a receiver holds, read from its export: one JSON object a line, the event itself or in a wrapping."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from evidence.connectors.products.syslog import BYTE_ORDER_MARK
from evidence.domain import reading
from evidence.errors import InvalidInput

# No event is longer; a longer line is no export of ours, and would be held in memory.
MAX_LINE = 16 * 1024 * 1024
# Where the event is in an object that is none itself.
_WRAPPINGS = (("result", "_raw"), ("event",), ("EventText",), ("attributes", "message"), ("message",))


@dataclass(frozen=True)
class Held:
    """One object of the file: on which line, and the event in it, None for something else."""

    line: int
    event: dict[str, Any] | None


def lines_of(file: IO[bytes]) -> Iterator[bytes]:
    """Lines of a file, each cut behind ``MAX_LINE`` bytes so that memory stays bounded."""
    return iter(lambda: file.readline(MAX_LINE + 1), b"")


def held_in(lines: Iterable[bytes]) -> Iterator[Held]:
    """Every object of the file in its order; empty lines and a search's previews are no objects.

    Known wrappings are HTTP Event Collector's ``{"event": …}``, the lines of Splunk's search export
    (``{"result": {"_raw": "…"}}``), rows of Sentinel's table whose ``EventText`` is whole, and Datadog's logs, plain
    or as its search lists them. A message of syslog may have its head in front. Raises ``InvalidInput`` that names
    the line which cannot be read.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if len(line) > MAX_LINE:
            raise InvalidInput(f"Line {number} is longer than {MAX_LINE} bytes.", code="line_too_long")
        try:
            value = reading.parse(_text(line))
            # Splunk repeats results while its search runs; the last ones come without the mark.
            if isinstance(value, dict) and "preview" in value and (value["preview"] or "result" not in value):
                continue
            yield Held(number, _unwrapped(value))
        except InvalidInput as error:
            raise InvalidInput(f"Line {number}: {error.detail}", code=error.code) from error


def _text(line: bytes) -> bytes:
    """A line, or the text of the syslog message that it is."""
    head, mark, text = line.partition(BYTE_ORDER_MARK)
    return text if mark and not head.lstrip().startswith((b"{", b"[")) else line


def _unwrapped(value: Any) -> dict[str, Any] | None:
    """The event inside ``value``; None when there is none."""
    if not isinstance(value, dict):
        return None
    if "event_type" in value:
        return value
    inner = next((found for path in _WRAPPINGS if (found := _at(value, path)) is not None), None)
    if isinstance(inner, str):
        try:
            inner = reading.parse(_text(inner.encode()))
        except (InvalidInput, UnicodeEncodeError):  # somebody else's text in the same index
            return None
    return inner if isinstance(inner, dict) and "event_type" in inner else None


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
