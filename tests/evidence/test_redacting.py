"""Faults, refusals and messages as they are shown: without secrets, in every place that Django itself writes (W28)."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib import messages
from django.contrib.messages.storage.base import BaseStorage
from django.test import Client, RequestFactory
from django.utils.html import format_html
from django.utils.module_loading import import_string

from cavra_site import problems, redacting
from evidence.connectors import references
from evidence.connectors.redaction import REDACTED, spellings
from evidence.domain import connector_health
from evidence.enums import Role
from evidence.errors import InvalidInput
from tests.builders import connector, person

SECRET = "s3cr3t-/+=\"'<&>value"
LONG = "s3cr3t-" + "long" * 40


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "_known", references._Known())
    monkeypatch.setenv("A_SECRET", SECRET)
    monkeypatch.setenv("LONG_SECRET", LONG)


def hides(text: str) -> None:
    """Nothing of the secrets is in ``text``, which hid something."""
    assert REDACTED in text
    assert [form for form in spellings([SECRET, LONG]) if form in text] == []
    assert "longlong" not in text


def fail(*args: Any, **kwargs: Any) -> None:
    """A fault in the middle of everything, with secrets wherever a traceback looks."""
    authorization = f"Bearer {SECRET}"
    wrapped = b"x" * 90 + LONG.encode() + b"y" * 90  # as long as pprint breaks it into pieces
    cut = "z" * 4_050 + LONG  # as long as Django cuts it in the middle
    raise RuntimeError(f"cannot send {authorization} {len(wrapped)} {len(cut)} {LONG}")


@pytest.mark.django_db
@pytest.mark.parametrize("debug", (False, True))
@pytest.mark.parametrize("accept", ("text/html", "application/json"))
@pytest.mark.parametrize("used", (False, True))
def test_w28_a_fault_shows_and_logs_no_secret(
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    debug: bool,
    accept: str,
    used: bool,
) -> None:
    settings.DEBUG = debug
    connector("siem", "https://siem.example.com/x", token_ref="env:A_SECRET", api_key_ref="env:LONG_SECRET")
    if not used:
        # As in a process that never sent anything: it learns of the secrets when the fault happens.
        monkeypatch.setattr(references, "_known", references._Known())
    monkeypatch.setattr(connector_health, "survey", fail)
    client = Client(raise_request_exception=False, headers={"accept": accept})
    client.force_login(person(Role.VIEWER))
    answer = client.get("/console/connectors/")
    assert answer.status_code == 500
    if debug:
        hides(answer.content.decode())
    else:
        assert "s3cr3t" not in answer.content.decode()
    said = "\n".join(logging.Formatter().format(record) for record in caplog.records)
    hides(said)
    assert "RuntimeError: cannot send Bearer" in said


def test_w28_a_mail_about_a_fault() -> None:
    references.learn(["env:A_SECRET", "env:LONG_SECRET"])
    try:
        fail()
    except RuntimeError:
        reporter = import_string(settings.DEFAULT_EXCEPTION_REPORTER)(
            RequestFactory().post("/x", {"token": SECRET}), *sys.exc_info(), is_email=True
        )
    hides(reporter.get_traceback_text())
    hides(reporter.get_traceback_html())


def test_a_value_that_cannot_be_shown_is_named() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise ValueError(SECRET)

    assert repr(redacting.Shown(Broken())) == "<Broken that cannot be shown: ValueError>"
    assert repr(redacting.Shown("x" * 5_000)).endswith("… <5002 characters>")


def test_w28_a_refusal_repeats_no_secret() -> None:
    references.learn(["env:A_SECRET"])
    error = InvalidInput(f"No {SECRET}.", errors={SECRET: [f"{SECRET}?"]}, listed=[{"a": SECRET}])
    answer = problems.exception_handler(error, {})
    assert answer is not None
    hides(json.dumps(answer.data))
    assert answer.data["code"] == "invalid"


@pytest.mark.django_db
def test_w28_messages_hold_no_secret_and_stay_what_they_were(client: Client) -> None:
    references.learn(["env:A_SECRET"])
    request = RequestFactory().get("/")
    request.session = client.session  # type: ignore[assignment]
    kept: BaseStorage = import_string(settings.MESSAGE_STORAGE)(request)
    kept.add(messages.ERROR, f"No {SECRET}")
    kept.add(messages.INFO, format_html("<b>{}</b> & {}", "bold", SECRET))
    plain, markup = list(kept)
    assert plain.message == f"No {REDACTED}"
    assert str(markup.message) == f"<b>bold</b> & {REDACTED}"
    assert hasattr(markup.message, "__html__")
    assert not hasattr(plain.message, "__html__")


def manage(*words: str, **variables: str) -> str:
    """What ``manage.py`` says on standard error."""
    done = subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=Path(settings.BASE_DIR),
        env={**os.environ, "DEBUG": "true", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode != 0
    return done.stderr


def test_w28_commands_fail_without_secrets() -> None:
    assert "s3cr3t-key" not in manage("s3cr3t-key", SECRET_KEY="s3cr3t-key")
    assert REDACTED in manage("s3cr3t-key", SECRET_KEY="s3cr3t-key")
    # Settings that cannot be read are said, and the address of a database shows no password.
    said = manage("check", DATABASE_URL="s3cr3t://root:hunter2@db.example.com/x")
    assert "hunter2" not in said
    assert said
