"""The one redactor: every spelling of a secret goes, other text stays, and log records pass it by themselves (W28)."""

import base64
import html
import io
import json
import logging
import pprint
import urllib.parse

import pytest

from evidence.connectors import redaction, references
from evidence.connectors.redaction import REDACTED, clean, redact, spellings

SECRET = 's3cr3t-/+="väl&<ue'
HOOK = "https://hooks.example.com/services/T000/B000/abcdefghijklmnop?sig=qrstuvwxyz0123456789"


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    monkeypatch.setattr(references, "_known", references._Known())


def known(monkeypatch, value, name="A_SECRET"):
    """A secret that this process met."""
    monkeypatch.setenv(name, value)
    references.learn([f"env:{name}"])


SPELLINGS = {
    "plain": lambda s: s,
    "in a sentence": lambda s: f"a{s}b{s}",
    "percent": lambda s: urllib.parse.quote(s, safe=""),
    "percent, lower case": lambda s: urllib.parse.quote(s, safe="").replace("%2F", "%2f").replace("%3D", "%3d")
    .replace("%22", "%22").replace("%2B", "%2b").replace("%C3%A4", "%c3%a4").replace("%3C", "%3c"),
    "path": lambda s: urllib.parse.quote(s),
    "form": lambda s: urllib.parse.urlencode({"t": s}),
    "JSON": lambda s: json.dumps({"t": s}),
    "JSON, letters": lambda s: json.dumps({"t": s}, ensure_ascii=False),
    "JSON, slashes": lambda s: json.dumps({"t": s}).replace("/", "\\/"),
    "JSON in JSON": lambda s: json.dumps({"t": json.dumps({"u": s})}),
    "HTML": html.escape,
    "JSON in HTML": lambda s: html.escape(json.dumps([s])),
    "repr": lambda s: repr({"t": s}),
    "bytes": lambda s: repr(s.encode()),
    "hex": lambda s: s.encode().hex(),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 of more": lambda s: base64.b64encode(f"user:{s}".encode()).decode(),
    "base64 of still more": lambda s: base64.b64encode(f"{{'a': {s}}}".encode()).decode(),
    "base64 for URLs": lambda s: base64.urlsafe_b64encode(f"x{s}y".encode()).decode(),
    "another alphabet's": lambda s: s.encode("utf-16-le").decode("latin-1").replace("\0", ""),
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_w28_every_spelling_goes(spelling, monkeypatch):
    text = SPELLINGS[spelling](SECRET)
    for hidden in (redact(text, (SECRET, "")), None):
        if hidden is None:
            known(monkeypatch, SECRET)
            hidden = redact(text)
        assert REDACTED in hidden
        # What is left says nothing: of an encoding at most the letters that were only partly its own.
        left = hidden.replace(REDACTED, "")
        assert not any(
            left.count(text[at : at + 8]) for at in range(len(text) - 8) if text[at : at + 8] in _of(SECRET)
        )


def _of(secret):
    """Every spelling in one text."""
    return "\n".join(spellings([secret]))


@pytest.mark.parametrize(
    ("secret", "told"),
    (
        ("Basic dXNlcjpwYXNzd29yZA==", ("dXNlcjpwYXNzd29yZA==", "user:password", "password")),
        ("Splunk 11111111-2222", ("11111111-2222",)),
        (
            HOOK,
            (
                *("hooks.example.com", "/services/T000/B000/abcdefghijklmnop", "abcdefghijklmnop"),
                *("qrstuvwxyz0123456789", "/services/T000/B000/abcdefghijklmnop?sig=qrstuvwxyz0123456789"),
            ),
        ),
        ("https://user:pa55word@example.com/x", ("pa55word", "user:pa55word@example.com")),
        ("https://t0ken@example.com/x", ("t0ken",)),
        ("https://abcdef0123456789:x-oauth-basic@example.com/x", ("abcdef0123456789",)),
        ("-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----", ("MIIEvQIBADANBg",)),
    ),
)
def test_w28_parts_that_give_it_away_go_too(secret, told, monkeypatch):
    known(monkeypatch, secret)
    for part in told:
        hidden = redact(f"it said {part}, you know")
        assert hidden == f"it said {REDACTED}, you know"


def test_w28_a_signing_key_goes_as_it_is_used(monkeypatch):
    key = bytes(range(200, 232))
    known(monkeypatch, "whsec_" + base64.b64encode(key).decode())
    assert redact(f"key={key!r} {key.hex()}") == f"key=b'{REDACTED}' {REDACTED}"


def test_ordinary_text_stays(monkeypatch):
    known(monkeypatch, "https://hooks.example.com/api?v=1")
    known(monkeypatch, "abc", "TOO_SHORT")
    known(monkeypatch, "postgresql://cavra:hunter2@db.example.com/evidence", "DATABASE")
    text = "cavra_site/urls.py: plain [text] abc /api v=1, GET /api/docs, 2026-06-01, user@example.com, https://example.org/a:b@c"
    assert redact(text) == text
    assert redact("a.c... abc...", ("a.c.",)) == f"{REDACTED}.. abc..."
    assert redact("", (SECRET,)) == ""
    # What was put in is not looked at again.
    assert redact("xxxxredacted", ("redacted", "xxxx")) == REDACTED * 2


@pytest.mark.parametrize(
    "url",
    (
        "postgresql://cavra:hunter2@db.example.com/cavra",
        "https://:hunter2@example.com",
        "smtp://mail%40example.com:hunter2%2F@mail.example.com:587",
    ),
)
def test_w28_name_and_password_of_any_url(url):
    hidden = redact(f"cannot reach <{url}>")
    assert "hunter2" not in hidden
    assert f"://{REDACTED}@" in hidden
    assert redact("ssh://git@example.com/a and git@b:c/d@e") == "ssh://git@example.com/a and git@b:c/d@e"


def test_a_part_of_a_secret_at_the_end_of_a_text_that_was_cut():
    secret = "0123456789abcdefghij"
    assert redact(f"said {secret[:15]}", (secret,), cut=True) == f"said {REDACTED}"
    assert redact(f"said {secret} and {secret[:6]}", (secret,), cut=True) == f"said {REDACTED} and {REDACTED}"
    assert redact("said 012", (secret,), cut=True) == "said 012"
    assert redact(f"said {secret[:15]}", (secret,)) == f"said {secret[:15]}"


def test_secrets_that_overlap_go_as_one():
    assert redact("abcdefgh", ("abcde", "defgh", "bcdef")) == REDACTED
    assert redact("abcdabcdabcd", ("abcdabcd",)) == REDACTED


def test_json_is_cleaned_in_names_and_values():
    value = {"a": [SECRET, 1, None, {SECRET: True}], "b": (f"x{SECRET}",)}
    assert clean(value, (SECRET,)) == {"a": [REDACTED, 1, None, {REDACTED: True}], "b": [f"x{REDACTED}"]}


def test_it_is_quick(monkeypatch):
    """A 64 KB answer, two hundred secrets: well below the time a send takes."""
    import time

    for number in range(200):
        known(monkeypatch, f"{number:03}-{'s3cr3t' * 5}", f"SECRET_{number}")
    text = "all is well " * 5_461
    redact(text)
    begun = time.thread_time()  # what it takes itself, whatever else this machine does
    assert redact(text) == text
    assert time.thread_time() - begun < 2.0


# --- the log --------------------------------------------------------------------------------------------------------


@pytest.fixture
def logged(monkeypatch):
    """A logger of its own whose handler nobody configured, and what it wrote."""
    known(monkeypatch, SECRET)
    logger = logging.Logger("somebody else's")
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s %(args)s"))
    logger.addHandler(handler)
    return logger, written


def _raised():
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise RuntimeError(f"cannot use {SECRET}") from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    "say",
    (
        lambda logger: logger.warning("it is %s", SECRET),
        lambda logger: logger.warning(f"it is {SECRET}"),
        lambda logger: logger.warning("it is %(a)r", {"a": {"b": SECRET}}),
        lambda logger: logger.warning("it is %d", SECRET),
        lambda logger: logger.error("it failed", exc_info=_raised()),
        lambda logger: logger.error("%s", _raised(), exc_info=True),
    ),
)  # fmt: skip
def test_w28_a_log_record_holds_no_secret(logged, say, capsys):
    logger, written = logged
    say(logger)
    seen = written.getvalue() + capsys.readouterr().err
    assert REDACTED in seen or "arguments that do not fit" in seen
    assert not any(form in seen for form in spellings([SECRET]))


def test_other_log_records_are_as_they_were(logged):
    logger, written = logged
    logger.warning("%s of %d", "one", 2)
    try:
        raise ValueError("no secret")
    except ValueError:
        logger.exception("failed")
    seen = written.getvalue()
    assert "WARNING one of 2 ('one', 2)" in seen
    assert "ValueError: no secret" in seen


def test_standard_error_of_a_command(monkeypatch):
    known(monkeypatch, SECRET)
    written = io.StringIO()
    stream = redaction.Stream(written)
    assert stream.write(f"CommandError: {SECRET}\n") == len(SECRET) + 15
    stream.writelines([f"{SECRET}!\n", "end"])
    stream.flush()
    assert written.getvalue() == f"CommandError: {REDACTED}\n{REDACTED}!\nend"


def test_nothing_shows_what_it_looks_for(monkeypatch):
    known(monkeypatch, SECRET)
    redact("anything")
    assert "s3cr3t" not in pprint.pformat(redaction._of_process)
