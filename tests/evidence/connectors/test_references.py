"""References to secrets: what they stand for, read when it is used, and why they stand for nothing (P18, W27)."""

import base64
import os
from pathlib import Path

import pytest

from evidence.checks import secrets_have_a_place
from evidence.connectors import references
from evidence.connectors.redaction import REDACTED, redact
from evidence.connectors.references import KEPT_S, MAX_FILE, Misconfigured, is_own_secret, resolve
from evidence.enums import FailureClass

SECRET = 's3cr3t-/+="value'


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("HOOK_TOKEN", f" {SECRET}\n")
    monkeypatch.setenv("EMPTY", "  ")
    monkeypatch.setenv("SHORT", "abc")
    monkeypatch.delenv("MISSING", raising=False)
    monkeypatch.setattr(references, "_known", references._Known())


@pytest.fixture
def folder(tmp_path, settings):
    """The directory of secrets."""
    made = tmp_path / "secrets"
    made.mkdir()
    settings.CAVRA_SECRETS_DIR = str(made)
    return made


def why(ref):
    """The rule that a reference breaks."""
    with pytest.raises(Misconfigured) as refused:
        resolve(ref, field="token_ref")
    assert (refused.value.field, refused.value.failure_class) == ("token_ref", FailureClass.AUTH_SETUP)
    assert str(refused.value) == f"token_ref {refused.value.rule}"
    return refused.value.rule


def test_a_variable_is_read_without_surrounding_space():
    assert resolve("env:HOOK_TOKEN") == SECRET


@pytest.mark.parametrize(
    "ref",
    (
        *("", SECRET, "HOOK_TOKEN", "env:", "env:A B", "env:HOOK_TOKEN\n", "ENV:HOOK_TOKEN"),
        *(
            "file:",
            "file:/etc/passwd",
            "file:../etc/passwd",
            "file:a/b",
            "file:.hidden",
            "file:..",
            "file:a\n",
        ),
    ),
)
def test_other_references_are_refused_and_not_repeated(ref, folder):
    assert why(ref) == "must have the form env:NAME or file:NAME"


@pytest.mark.parametrize("ref", ("env:MISSING", "env:EMPTY"))
def test_w27_a_missing_variable_is_refused(ref):
    assert why(ref) == "names an environment variable that is not set"


def test_what_is_too_short_to_be_hidden_is_no_secret(folder):
    (folder / "short").write_text("abc\n")
    assert (
        why("env:SHORT") == why("file:short") == "names a value below 4 characters: too short to be a secret"
    )


# --- files --------------------------------------------------------------------------------------------------------


def test_a_file_is_read_at_the_time_of_use(folder):
    file = folder / "hec-token.v1"
    file.write_text(f"\ufeff{SECRET}\r\n", encoding="utf-8")
    assert resolve("file:hec-token.v1") == SECRET
    file.write_text("the next one")
    assert resolve("file:hec-token.v1") == "the next one"
    file.unlink()
    assert why("file:hec-token.v1") == "names a file that is not there"


def test_w27_a_file_needs_a_directory(settings):
    settings.CAVRA_SECRETS_DIR = ""
    assert why("file:token") == "names a file, and CAVRA_SECRETS_DIR is not set"
    settings.CAVRA_SECRETS_DIR = "/nowhere/at/all"
    assert why("file:token") == "names a file that is not there"


@pytest.mark.parametrize(
    ("content", "rule"),
    (
        (b"", "names an empty file"),
        (b" \n\t", "names an empty file"),
        (b"\xff\xfe\x00", "names a file that is not UTF-8 text"),
        (b"x" * (MAX_FILE + 1), f"names a file of more than {MAX_FILE} bytes"),
    ),
)
def test_w27_a_file_that_holds_no_secret(folder, content, rule):
    (folder / "token").write_bytes(content)
    assert why("file:token") == rule


def test_the_largest_file_is_taken(folder):
    (folder / "token").write_bytes(b"x" * MAX_FILE)
    assert len(resolve("file:token")) == MAX_FILE


def test_kubernetes_swaps_a_folder_behind_two_links(folder):
    (folder / "..2026_01").mkdir()
    (folder / "..2026_01" / "token").write_text(SECRET)
    (folder / "..data").symlink_to("..2026_01")
    (folder / "token").symlink_to("..data/token")
    assert resolve("file:token") == SECRET
    (folder / "..2026_02").mkdir()
    (folder / "..2026_02" / "token").write_text("rotated secret")
    (folder / "..tmp").symlink_to("..2026_02")
    os.replace(folder / "..tmp", folder / "..data")
    assert resolve("file:token") == "rotated secret"


@pytest.mark.parametrize("target", ("../outside", "{tmp}/outside", "../secrets-too/token", "..data/token"))
def test_no_link_leads_out_of_the_directory(folder, tmp_path, target):
    (tmp_path / "outside").write_text(SECRET)
    (tmp_path / "secrets-too").mkdir()
    (tmp_path / "secrets-too" / "token").write_text(SECRET)
    (folder / "..data").symlink_to("../secrets-too")
    (folder / "token").symlink_to(target.format(tmp=tmp_path))
    assert why("file:token") == "names a file outside of CAVRA_SECRETS_DIR"
    assert SECRET not in references.secrets()


def test_what_is_no_file_neither_reads_nor_waits(folder):
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "round").symlink_to("round")
    (folder / "gone").symlink_to("nothing")
    assert why("file:folder") in ("names something that is no file", "names a file that cannot be read")
    assert why("file:pipe") == "names something that is no file"
    assert why("file:gone") == "names a file that is not there"
    assert why("file:round") == "names a link that leads nowhere"


# --- the service's own ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ("SECRET_KEY", "DATABASE_URL", "EMAIL_URL"))
def test_a_connector_cannot_carry_the_services_own_secrets(name, monkeypatch):
    monkeypatch.setenv(name, "the-value")
    assert why(f"env:{name}") == "names a secret of this service itself"
    assert is_own_secret(f"env:{name}")


def test_nor_under_another_name(folder, monkeypatch, settings):
    settings.SECRET_KEY = "the key that signs sessions"
    monkeypatch.setitem(settings.DATABASES["default"], "PASSWORD", "database password")
    key = f"CAVRA-LEDGER-KEY-1 {base64.b64encode(bytes(range(32))).decode()}"
    monkeypatch.setenv("LEDGER_KEY", key)
    (folder / "ledger-key").write_text("not read any more")
    settings.CAVRA_LEDGER_KEYS = ["env:LEDGER_KEY", f"file:{folder}/ledger-key"]
    (folder / "copy").write_text(f"{settings.SECRET_KEY}\n")
    (folder / "password").write_text("database password")
    monkeypatch.setenv("DATABASE_URL", "postgresql://cavra@db/cavra")
    (folder / "address").write_text("postgresql://cavra@db/cavra")
    (folder / "key").write_text(key)
    (folder / "seed").write_text(key.split()[1])
    (folder / "link").symlink_to("ledger-key")
    own = [
        "env:LEDGER_KEY",
        *(f"file:{name}" for name in ("copy", "password", "address", "key", "seed", "link", "ledger-key")),
    ]
    assert {ref: why(ref) for ref in own} == dict.fromkeys(own, "names a secret of this service itself")
    assert all(is_own_secret(ref) for ref in own)
    (folder / "other").write_text(SECRET)
    assert not any(
        is_own_secret(ref) for ref in ("file:other", "file:missing", "env:HOOK_TOKEN", "env:MISSING", "")
    )


# --- what is kept out of what is written ------------------------------------------------------------------------------


def test_of_the_databases_address_the_password_is_a_secret_and_nothing_else(settings, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://cavra:open-sesame@db.example.com:5432/cavra")
    monkeypatch.setitem(settings.DATABASES["default"], "PASSWORD", "open-sesame")
    assert (
        redact("cavra on db.example.com:5432 let open-sesame in")
        == f"cavra on db.example.com:5432 let {REDACTED} in"
    )
    assert "open-sesame" not in redact(f"at {os.environ['DATABASE_URL']}")


def test_known_are_the_values_of_references_met_and_of_the_service(settings, monkeypatch, folder):
    settings.SECRET_KEY = "the key that signs sessions"
    settings.EMAIL_HOST_PASSWORD = "mailbox password"
    assert {"the key that signs sessions", "mailbox password"} <= references.secrets()
    assert SECRET not in references.secrets()
    resolve("env:HOOK_TOKEN")
    assert SECRET in references.secrets()
    assert references.secrets() is references.secrets()
    monkeypatch.setenv("LATER", "set later on")
    references.learn(["env:LATER", "no reference", "file:token"])
    assert "set later on" in references.secrets()
    (folder / "token").write_text("from a file")
    references._known._files.clear()  # as a second later
    assert "from a file" in references.secrets()
    references.hold("fetched token")
    references.hold("abc")
    assert "fetched token" in references.secrets()
    assert "abc" not in references.secrets()


def test_a_value_that_changed_is_known_for_a_while(monkeypatch):
    now = 1_000.0
    monkeypatch.setattr(references.time, "monotonic", lambda: now)
    resolve("env:HOOK_TOKEN")
    now += 1
    assert SECRET in references.secrets()
    monkeypatch.setenv("HOOK_TOKEN", "the next secret")
    now += KEPT_S - 1
    assert {SECRET, "the next secret"} <= references.secrets()
    now += 2
    assert SECRET not in references.secrets()
    assert "the next secret" in references.secrets()


def test_who_looked_before_takes_nothing_away_from_who_looks_now(monkeypatch):
    """A thread that was held up writes down what it found, from before our secret, right after we did."""

    class Beside(references._Known):
        def __setattr__(self, name, value):
            super().__setattr__(name, value - {SECRET} if name == "_values" else value)

    monkeypatch.setattr(references, "_known", Beside())
    resolve("env:HOOK_TOKEN")
    assert SECRET in references.secrets()
    assert SECRET in references.secrets()


def test_nothing_shows_what_is_known():
    resolve("env:HOOK_TOKEN")
    assert "s3cr3t" not in repr(references._known)


def test_a_directory_that_is_not_there_is_a_warning(folder, settings):
    assert secrets_have_a_place() == []
    settings.CAVRA_SECRETS_DIR = str(folder / "nothing")
    (warning,) = secrets_have_a_place()
    assert warning.id == "evidence.W007"
    settings.CAVRA_SECRETS_DIR = ""
    assert secrets_have_a_place() == []


def test_the_directory_is_an_absolute_path():
    import subprocess
    import sys

    asked = subprocess.run(
        [sys.executable, "-c", "import cavra_site.settings"],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "DEBUG": "true", "CAVRA_SECRETS_DIR": "run/secrets"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "CAVRA_SECRETS_DIR is no absolute path" in asked.stderr
