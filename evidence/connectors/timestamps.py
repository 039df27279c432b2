"""Time-stamp requests and responses of RFC 3161, as much of DER (X.690) as they need.

What is checked here is that a response is about our bytes and our request. Whose clock it was is the token's
signature; ``openssl ts -verify`` checks that with the authority's certificate.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

REQUEST_TYPE = "application/timestamp-query"
RESPONSE_TYPE = "application/timestamp-reply"

BOOLEAN, INTEGER, OCTET_STRING, NULL, OID, SEQUENCE = 0x01, 0x02, 0x04, 0x05, 0x06, 0x30
GENERALIZED_TIME, EXPLICIT_0 = 0x18, 0xA0

_SHA256 = bytes.fromhex("608648016503040201")
_SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
_TST_INFO = bytes.fromhex("2a864886f70d0109100104")
# PKIStatus granted and grantedWithMods (RFC 3161 section 2.4.2).
_GRANTED = (0, 1)


class BadTimestamp(ValueError):
    """A response that is not the answer to our request: its text says why."""


@dataclass(frozen=True)
class Element:
    """One element of DER: its tag byte and its content."""

    tag: int
    content: bytes

    def parts(self) -> list["Element"]:
        """The elements inside."""
        found, rest = [], self.content
        while rest:
            element, rest = _element(rest)
            found.append(element)
        return found


def encoded(tag: int, *contents: bytes) -> bytes:
    """One element: tag, length in its shortest form, contents."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes(-(-size.bit_length() // 8), "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def integer(value: int) -> bytes:
    """An INTEGER that is not negative."""
    return encoded(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def request(digest: bytes, nonce: int) -> bytes:
    """TimeStampReq for a SHA-256 ``digest``, asking for the authority's certificate (RFC 3161 section 2.4.1)."""
    algorithm = encoded(SEQUENCE, encoded(OID, _SHA256), encoded(NULL))
    imprint = encoded(SEQUENCE, algorithm, encoded(OCTET_STRING, digest))
    return encoded(SEQUENCE, integer(1), imprint, integer(nonce), encoded(BOOLEAN, b"\xff"))


def stamped_at(response: bytes, digest: bytes, nonce: int) -> datetime:
    """Time that a TimeStampResp gives for ``digest``, in the answer to the request with ``nonce``.

    Raises ``BadTimestamp`` when it was not granted, or speaks of other bytes or of another request.
    """
    try:
        info = _info(response)
        imprint, moment = info[2].parts(), info[4]
        algorithm = imprint[0].parts()[0]
        # Behind the time come optional elements; the nonce is the only INTEGER among them.
        nonces = [_integer(part) for part in info[5:] if part.tag == INTEGER]
    except IndexError:
        _bad("it is cut short")
    if (algorithm.tag, algorithm.content) != (OID, _SHA256) or imprint[1] != Element(OCTET_STRING, digest):
        _bad("it is about other bytes")
    if nonces != [nonce]:
        _bad("it answers another request")
    return _time(moment)


def _info(response: bytes) -> list[Element]:
    """Elements of the TSTInfo inside a TimeStampResp (RFC 3161 section 2.4.2, RFC 5652 section 5)."""
    outer, rest = _element(response)
    if rest:
        _bad("something follows it")
    status, *token = outer.parts()
    if _integer(status.parts()[0]) not in _GRANTED or not token:
        _bad("the authority did not grant it")
    kind, content = token[0].parts()[:2]
    if kind != Element(OID, _SIGNED_DATA) or content.tag != EXPLICIT_0:
        _bad("it holds no signed data")
    signed = content.parts()[0].parts()
    encapsulated = signed[2].parts()
    if encapsulated[0] != Element(OID, _TST_INFO) or encapsulated[1].tag != EXPLICIT_0:
        _bad("it holds no time-stamp")
    octets = encapsulated[1].parts()[0]
    if octets.tag != OCTET_STRING:
        _bad("it holds no time-stamp")
    info, rest = _element(octets.content)
    if rest or info.tag != SEQUENCE:
        _bad("it holds no time-stamp")
    return info.parts()


def _element(data: bytes) -> tuple[Element, bytes]:
    """The first element of ``data`` and what follows it."""
    if len(data) < 2:
        _bad("it is cut short")
    tag, size, start = data[0], data[1], 2
    if tag & 0x1F == 0x1F:
        _bad("a tag of several bytes is not expected")
    if size >= 0x80:
        start = 2 + (size & 0x7F)
        if not 3 <= start <= 6 or len(data) < start:
            _bad("a length cannot be read")
        size = int.from_bytes(data[2:start], "big")
    if len(data) < start + size:
        _bad("it is cut short")
    return Element(tag, data[start : start + size]), data[start + size :]


def _integer(element: Element) -> int:
    if element.tag != INTEGER or not element.content:
        _bad("a number is expected")
    return int.from_bytes(element.content, "big", signed=True)


def _time(element: Element) -> datetime:
    """GeneralizedTime in UTC, with or without a fraction (RFC 3161 section 2.4.2)."""
    text = element.content.decode("ascii", "replace")
    whole, _, fraction = text.removesuffix("Z").partition(".")
    if element.tag != GENERALIZED_TIME or not text.endswith("Z") or not (fraction or "0").isdecimal():
        _bad("its time cannot be read")
    try:
        moment = datetime.strptime(whole, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        _bad("its time cannot be read")
    return moment.replace(microsecond=int(fraction[:6].ljust(6, "0")))


def _bad(why: str) -> NoReturn:
    raise BadTimestamp(f"The time-stamp is not accepted: {why}.")
