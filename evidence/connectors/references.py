"""References to secrets: ``env:NAME`` and ``file:NAME``. What they stand for is read when it is used (P18).

This process knows which references it has met. Their values, and those of the service itself, are what
``redaction`` keeps out of everything that is written or shown.
"""

import errno
import os
import re
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from django.conf import settings as service
from django.core.exceptions import ImproperlyConfigured

from evidence.enums import FailureClass

# Anything shorter is found in ordinary text by chance: it is refused rather than hidden.
MIN_SECRET = 4
MAX_FILE = 64 * 1024
# What was sent with a value may be answered, or logged, for a while after the value changed.
KEPT_S = 3600.0
# Files are looked at no more often than this when nobody uses what is in them.
LOOK_AGAIN_S = 1.0

_REFERENCE = re.compile(r"(?:env:([A-Za-z_][A-Za-z0-9_]*)|file:([A-Za-z0-9_][A-Za-z0-9._-]*))")
# A connector must not carry the service's own secrets to a receiver.
_OWN_VARIABLES = frozenset({"SECRET_KEY", "DATABASE_URL", "EMAIL_URL"})


class Misconfigured(Exception):
    """A connector cannot be used as configured: ``field`` and the rule it breaks, never the value."""

    def __init__(
        self, field: str, rule: str, failure_class: FailureClass = FailureClass.MISCONFIGURED
    ) -> None:
        super().__init__(f"{field} {rule}")
        self.field = field
        self.rule = rule
        self.failure_class = failure_class


class _Unreadable(Exception):
    """A reference stands for nothing now; the text is the rule it breaks."""


def resolve(ref: str, *, field: str = "reference") -> str:
    """The secret that ``ref`` stands for now, without surrounding white space.

    ``env:NAME`` is an environment variable, ``file:NAME`` a file in ``CAVRA_SECRETS_DIR``. Raises ``Misconfigured``
    naming ``field``, with class ``auth_setup``; the text repeats neither reference nor value, for the reference
    may be a secret typed into the wrong field.
    """
    try:
        value = _read(ref)
        if len(value) < MIN_SECRET:
            raise _Unreadable(f"names a value below {MIN_SECRET} characters: too short to be a secret")
        if _is_own(ref, value):
            raise _Unreadable("names a secret of this service itself")
    except _Unreadable as error:
        raise Misconfigured(field, str(error), FailureClass.AUTH_SETUP) from None
    _known.note(ref, value)
    return value


def is_own_secret(ref: str) -> bool:
    """Whether a reference names a secret of this service itself: by name, by file, or by what it stands for now."""
    try:
        return _is_own(ref, _read(ref))
    except _Unreadable:
        return _is_own(ref, "")


def learn(refs: Iterable[str]) -> None:
    """Have what these references stand for kept out of what this process writes, from now on."""
    _known.learn(ref for ref in refs if _REFERENCE.fullmatch(ref))


def hold(value: str) -> None:
    """Have a value that no reference stands for, like a token that was fetched, kept out while it is in use."""
    if len(value) >= MIN_SECRET:
        _known.hold(value)


def secrets() -> frozenset[str]:
    """Every value to keep out of what is written: of the references met here, and of the service itself.

    The same object as before while nothing changed. Touches no database, for it is asked while something is logged.
    """
    return _known.values()


# --- reading ------------------------------------------------------------------------------------------------------


def _read(ref: str) -> str:
    match = _REFERENCE.fullmatch(ref)
    if match is None:
        raise _Unreadable("must have the form env:NAME or file:NAME")
    if match[1]:
        if match[1] in _OWN_VARIABLES:
            raise _Unreadable("names a secret of this service itself")
        if not (value := os.environ.get(match[1], "").strip()):
            raise _Unreadable("names an environment variable that is not set")
        return value
    if not (folder := service.CAVRA_SECRETS_DIR):
        raise _Unreadable("names a file, and CAVRA_SECRETS_DIR is not set")
    try:
        return _content(_inside(Path(folder), match[2]))
    except FileNotFoundError:
        pass  # a volume that is renewed swaps its folder between the two steps
    except OSError as error:
        raise _Unreadable(_why(error)) from None
    try:
        return _content(_inside(Path(folder), match[2]))
    except OSError as error:
        raise _Unreadable(_why(error)) from None


def _inside(folder: Path, name: str) -> Path:
    """The file itself, behind every symbolic link, which has to lie in the folder (as Kubernetes' ``..data`` does)."""
    found = _real(folder / name)
    if not found.is_relative_to(_real(folder)):
        raise _Unreadable("names a file outside of CAVRA_SECRETS_DIR")
    return found


def _real(path: Path) -> Path:
    # Not Path.resolve, which has an error of its own for links in a circle.
    return Path(os.path.realpath(path, strict=True))


def _content(path: Path) -> str:
    # Not blocking: a pipe without a writer would hold up whoever opens it.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _Unreadable("names something that is no file")
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise _Unreadable(f"names a file of more than {MAX_FILE} bytes")
    try:
        value = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise _Unreadable("names a file that is not UTF-8 text") from None
    if not value:
        raise _Unreadable("names an empty file")
    return value


def _why(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "names a file that is not there"
    if error.errno == errno.ELOOP:
        return "names a link that leads nowhere"
    return "names a file that cannot be read"


# --- the service's own ----------------------------------------------------------------------------------------------


def _is_own(ref: str, value: str) -> bool:
    kind, _, name = ref.partition(":")
    if kind == "env" and (name in _OWN_VARIABLES or ref in service.CAVRA_LEDGER_KEYS):
        return True
    if kind == "file" and service.CAVRA_SECRETS_DIR:
        path = os.path.realpath(Path(service.CAVRA_SECRETS_DIR) / name)
        if path in {os.path.realpath(place) for place in _ledger_files()}:
            return True
    return bool(value) and not _own(value).isdisjoint(
        {*_own_values(), os.environ.get("DATABASE_URL", "").strip()}
    )


def _ledger_files() -> list[str]:
    return [ref.removeprefix("file:") for ref in service.CAVRA_LEDGER_KEYS if ref.startswith("file:")]


def _own(value: str) -> set[str]:
    """A value, and the key in it when it is a line of the ledger's keys (format and key, one space between)."""
    return {value, value.rpartition(" ")[2]}


def _own_values() -> set[str]:
    """What only this service may know. The password of its mail account is not among it: a connector may use it too.

    Of the database's address the password alone: host, user and name of a database are words like any other.
    """
    found = {str(key) for key in (service.SECRET_KEY, *service.SECRET_KEY_FALLBACKS)}
    found.add(os.environ.get("SECRET_KEY", "").strip())
    found |= {str(database.get("PASSWORD") or "") for database in service.DATABASES.values()}
    for ref in service.CAVRA_LEDGER_KEYS:
        kind, _, place = ref.partition(":")
        found |= _own((os.environ.get(place, "") if kind == "env" else _known.content(Path(place))).strip())
    return {value for value in found if len(value) >= MIN_SECRET}


# --- what this process knows ------------------------------------------------------------------------------------------


class _Known:
    """References that this process met, with their values as of the last look.

    Without a lock, which a fork would copy as held: every step is one that threads cannot see half of.
    """

    def __init__(self) -> None:
        self._refs: set[str] = set()
        # Values, and when each was last in use.
        self._held: dict[str, float] = {}
        self._files: dict[str, tuple[float, tuple[int, ...], str]] = {}
        self._values: frozenset[str] = frozenset()

    def note(self, ref: str, value: str) -> None:
        """``ref`` stood for ``value`` just now."""
        self._refs.add(ref)
        self.hold(value)

    def hold(self, value: str) -> None:
        """``value`` is in use now."""
        self._held[value] = time.monotonic()

    def learn(self, refs: Iterable[str]) -> None:
        """These exist."""
        self._refs.update(refs)

    def values(self) -> frozenset[str]:
        """See ``secrets``."""
        now = time.monotonic()
        try:
            current = {self._value(ref) for ref in tuple(self._refs)} | _own_values()
            current.add(service.EMAIL_HOST_PASSWORD)
        except ImproperlyConfigured:  # what a command says of settings that cannot be read
            current = {os.environ.get(name, "") for name in _OWN_VARIABLES}
        self._held.update(dict.fromkeys(current - {"", None}, now))
        held = dict(self._held)
        for value in [value for value, at in held.items() if now - at >= KEPT_S]:
            del held[value]
            self._held.pop(value, None)
        found = self._values
        if found != held.keys():
            # Not read again: a thread that looked before us may write down less right after us.
            found = self._values = frozenset(held)
        return found

    def _value(self, ref: str) -> str:
        kind, _, name = ref.partition(":")
        if kind == "env":
            return "" if name in _OWN_VARIABLES else os.environ.get(name, "").strip()
        folder = service.CAVRA_SECRETS_DIR
        return self.content(Path(folder) / name, inside=Path(folder)) if folder else ""

    def content(self, path: Path, *, inside: Path | None = None) -> str:
        """What is in a file, empty when it cannot be read; read again when it is another file than before."""
        now = time.monotonic()
        at, before, value = self._files.get(str(path), (now - LOOK_AGAIN_S, (), ""))
        if now - at < LOOK_AGAIN_S:
            return value
        mark: tuple[int, ...] = ()
        try:
            found = os.stat(path)
            mark = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            if mark != before:
                value = _content(_inside(inside, path.name) if inside else _real(path))
        except (OSError, _Unreadable):
            value = ""
        self._files[str(path)] = (now, mark, value)
        return value


_known = _Known()
