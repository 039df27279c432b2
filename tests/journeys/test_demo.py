"""What a newcomer starts: the demo's real work, the walk through the chain, the processes, the picture."""

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from django.conf import LazySettings
from django.contrib.auth import authenticate
from django.core.management import call_command
from django.core.management.base import CommandError

from evidence.domain import capsules, people, verification
from evidence.domain.clock import system_clock
from evidence.enums import Role
from evidence.models import Attempt, Case, Connector, Person, Record, Route
from recovery.management import demo, diagram
from recovery.management.commands.demo_receiver import Receiver
from recovery.models import Recovery
from tests.builders import person
from tests.evidence.ledger_keys import Keys
from tests.evidence.verifier import run, verify

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def receiver(settings: LazySettings, tmp_path: Path) -> Iterator[Receiver]:
    """The demo's own receiver, with data of this test's own."""
    settings.CAVRA_DATA = tmp_path
    running = Receiver(0, tmp_path / "demo-receiver.log")
    demo.keep(demo.port_file(), f"{running.server_address[1]}\n")
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def loaded() -> str:
    """What the demo prints."""
    out = StringIO()
    call_command("demo", stdout=out)
    return out.getvalue()


def arrived(receiver: Receiver) -> list[dict[str, Any]]:
    """What came in, as the receiver wrote it down; orders to it left out."""
    lines = [json.loads(line) for line in receiver.log.read_text().splitlines()]
    return [line for line in lines if "path" in line]


def log_equals_attempts(receiver: Receiver) -> None:
    """Every attempt that says bytes left is in the receiver's log, with those bytes, and nothing else is.

    The chat is left out: it gets notices too, which are no attempts.
    """
    sent = Attempt.objects.filter(bytes_sent__gt=0)
    evidence = sorted(
        (line["sha256"], line["status"]) for line in arrived(receiver) if line["path"] != demo.CHAT
    )
    attempts = sorted(
        (attempt.body_sha256, attempt.status_code)
        for attempt in sent.select_related("case__connector")
        if attempt.case.connector.key != "release_chat"
    )
    assert evidence == attempts


# --- data --------------------------------------------------------------------------------------------------------


def test_the_demo_is_real_work(db: None, receiver: Receiver) -> None:
    loaded()
    states = dict(Case.objects.values_list("case_id", "state"))
    assert sorted(case_id.partition(".")[2] + ":" + state for case_id, state in states.items()) == [
        "release_chat:delivered",
        "splunk:failed",
        "webhook:failed",
        "webhook:failed",
    ]
    failed = Attempt.objects.filter(outcome="failed")
    assert {(attempt.status_code, attempt.failure_class) for attempt in failed} == {(503, "unavailable")}
    assert not Route.objects.filter(acknowledgement_state="outstanding").exists()
    log_equals_attempts(receiver)
    assert list(verification.verify()) == []


def test_the_capsule_of_a_demo_case_verifies(
    db: None, receiver: Receiver, keys: Keys, tmp_path: Path
) -> None:
    loaded()
    keys.add()
    (auditor,) = (who for who in Person.objects.all() if Role.AUDITOR in people.roles_of(who))
    case = Case.objects.filter(state="failed").earliest("pk")
    made = capsules.freeze(case, by=auditor, clock=system_clock)
    assert made.content is not None
    laptop = tmp_path / "laptop"
    with zipfile.ZipFile(BytesIO(made.content)) as archive:
        archive.extractall(laptop)
    done = run(cwd=laptop, file=laptop / "verify.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert case.case_id in done.stdout
    files = sorted(path for path in laptop.rglob("*") if path.is_file() and path.name != "verify.py")
    assert {path.relative_to(laptop).parts[0] for path in files} == {
        *("records", "entries", "proofs", "checkpoint", "key.vkey", "statement.dsse.json", "index.html")
    }
    for path in files:
        data = path.read_bytes()
        for place in (0, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            assert verify.main([str(laptop)]) == 1, f"byte {place} of {path.name}"
        path.write_bytes(data)
    assert verify.main([str(laptop)]) == 0


def test_loading_again_adds_nothing(db: None, receiver: Receiver) -> None:
    first = loaded()
    records, requests = Record.objects.count(), len(arrived(receiver))
    Connector.objects.filter(key="webhook").update(title="Renamed by somebody")
    assert loaded() == first
    assert (Record.objects.count(), len(arrived(receiver))) == (records, requests)
    assert Connector.objects.get(key="webhook").title == "Renamed by somebody"


def test_everybody_can_sign_in_and_the_file_is_private(db: None, receiver: Receiver) -> None:
    printed = loaded()
    path = demo.Logins.path()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    logins = demo.Logins.read()
    assert logins is not None
    held = set()
    for name, login in logins.people.items():
        who = authenticate(username=name, password=login.password)
        assert isinstance(who, Person)
        assert f"{name} " in printed
        assert login.password in printed
        assert login.token not in printed
        held |= people.roles_of(who)
    assert held == set(Role)


def test_work_that_is_not_the_demos_is_left_alone(db: None, receiver: Receiver) -> None:
    person(Role.ANALYST)
    before = Record.objects.count()
    with pytest.raises(CommandError, match="holds work that is not the demo's"):
        call_command("demo", stdout=StringIO())
    assert Record.objects.count() == before
    assert not receiver.log.exists()
    assert not demo.Logins.path().exists()


def test_logins_of_another_database_do_not_open_this_one(db: None, receiver: Receiver) -> None:
    loaded()
    logins = demo.Logins.read()
    assert logins is not None
    logins.log = "0" * 64
    logins.write()
    with pytest.raises(CommandError, match="holds work that is not the demo's"):
        call_command("demo", stdout=StringIO())


def test_without_its_receiver_the_demo_is_not_loaded(
    db: None, settings: LazySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CAVRA_DATA = tmp_path
    monkeypatch.setattr("recovery.management.commands.demo.STARTS_WITHIN_S", 0.0)
    with pytest.raises(CommandError, match="receiver does not answer"):
        call_command("demo", stdout=StringIO())
    assert not Person.objects.exists()


# --- the walk ----------------------------------------------------------------------------------------------------


def walked(url: str) -> str:
    """What the walk prints."""
    out = StringIO()
    call_command("demo_walk", url=url, stdout=out, no_color=True)
    return out.getvalue()


def test_the_walk_goes_through_the_whole_chain_again_and_again(
    transactional_db: None, live_server: Any, receiver: Receiver, keys: Keys
) -> None:
    loaded()
    keys.add()
    for provider in ("splunk", "webhook", "splunk"):  # the third has to make its own failure first
        trace = walked(live_server.url)
        assert f"The recovery of {provider} is closed as resolved, by four people." in trace
        acting = {line.split()[1] for line in trace.splitlines() if " POST " in line}
        assert len(acting) == 5
        assert "verify.py: PROVEN" in trace
        assert "have exactly the bytes that were sealed." in trace
        lies = trace.rpartition("zip: ")[2].splitlines()[0]
        assert zipfile.is_zipfile(lies)
        assert run(lies, "--key", str(Path(lies).parent / "ledger.vkey"), cwd=ROOT).returncode == 0
    assert "Nothing is left to retry" in trace
    assert not Case.objects.exclude(state="delivered").exists()
    assert set(Recovery.objects.values_list("state", flat=True)) == {"resolved"}
    log_equals_attempts(receiver)
    assert list(verification.verify()) == []


def test_a_surprise_ends_the_walk(transactional_db: None, live_server: Any, receiver: Receiver) -> None:
    loaded()
    logins = demo.Logins.read()
    assert logins is not None
    logins.people["t.rey"].token = logins.people["m.lindqvist"].token
    logins.write()
    with pytest.raises(CommandError, match=r"t\.rey: POST .* was answered 403"):
        walked(live_server.url)
    assert not Attempt.objects.filter(number=2).exists()


def test_nobody_there_is_said_to_be_nobody(db: None, receiver: Receiver) -> None:
    loaded()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(CommandError, match="Nobody answers"):
            walked(f"http://127.0.0.1:{free.getsockname()[1]}")


# --- the processes -----------------------------------------------------------------------------------------------


def environment(data: Path, port: int) -> dict[str, str]:
    """As on a machine that has nothing set but the path that `make run` puts first."""
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "CAVRA_DATA": str(data), "PORT": str(port)}


@pytest.fixture
def port() -> Iterator[int]:
    """A port that nobody gets by chance meanwhile; a server that asks for it, and for its reuse, does."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/accounts/login/", timeout=5).close()
    except OSError:
        return False
    return True


def children(parent: int) -> dict[str, int]:
    """Process id of each child, by its command line."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"\nPPid:\t{parent}\n" in (process / "status").read_text():
                found[(process / "cmdline").read_text().replace("\0", " ")] = int(process.name)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    return found


@pytest.mark.slow
def test_run_starts_everything_and_ends_everything(tmp_path: Path, port: int) -> None:
    with (tmp_path / "said").open("w") as said:
        run = subprocess.Popen(
            ["sh", "bin/run"], cwd=ROOT, env=environment(tmp_path / "data", port), stdout=said, stderr=said
        )
    try:
        # Eight programs start one after the other.
        until = time.monotonic() + 400
        while not answers(port):
            assert run.poll() is None, (tmp_path / "said").read_text()
            assert time.monotonic() < until, (tmp_path / "said").read_text()
            time.sleep(0.2)
        started = children(run.pid)
        worker = next(pid for args, pid in started.items() if "manage.py worker" in args)
        receiver = next(pid for args, pid in started.items() if "demo_receiver" in args)
        assert any("gunicorn" in args for args in started)
        os.kill(worker, 9)
        assert run.wait(timeout=120) == 1
    finally:
        run.terminate()
        run.wait(timeout=120)
    words = (tmp_path / "said").read_text()
    assert f"http://127.0.0.1:{port}/console/" in words
    assert "The worker process ended" in words
    assert not answers(port)
    with pytest.raises(ProcessLookupError):
        os.kill(receiver, 0)


def test_run_says_that_the_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = subprocess.run(
            ["sh", "bin/run"],
            cwd=ROOT,
            env=environment(tmp_path, port),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert ended.returncode == 1
    assert f"Port {port} cannot be used" in ended.stderr
    assert not (tmp_path / "cavra.sqlite3").exists()


# --- the picture -------------------------------------------------------------------------------------------------


def test_the_picture_is_what_the_tables_say(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("chain_diagram", check=True)
    assert "is what the tables say" in capsys.readouterr().out


def test_a_picture_that_drifted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagram, "STEPS", diagram.STEPS[:-1])
    with pytest.raises(CommandError, match="is not what the tables say"):
        call_command("chain_diagram", check=True)


def test_the_picture_names_every_state_and_is_readable_without_eyes() -> None:
    drawn = diagram.draw()
    assert drawn == diagram.draw()
    root = ElementTree.fromstring(drawn)
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len(diagram.tables()) == 11
    for table in diagram.tables():
        assert diagram.name(table) in words
        for state in table.moves:
            assert state.value in words
            assert state.value in diagram.describe()
    assert root.get("role") == "img"
    assert {
        root.find(f"{{http://www.w3.org/2000/svg}}{name}").get("id") for name in ("title", "desc")
    } == set(  # type: ignore[union-attr]
        (root.get("aria-labelledby") or "").split()
    )
