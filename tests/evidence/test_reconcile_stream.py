"""What a receiver holds is compared with what was sent, by the bytes that it really got."""

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction

from evidence import guards
from evidence.api import stream_views
from evidence.domain import events, stream_comparison, stream_files
from evidence.domain.stream_comparison import Comparison, What
from evidence.enums import CaseState, Role
from evidence.errors import InvalidInput
from evidence.models import Case, Connector, LedgerHead, MerkleNode, StreamHead
from tests.builders import World, connector
from tests.evidence.test_console import signed_in
from tests.evidence.test_history_api import Reader


def got(world: World, key: str = "webhook") -> list[bytes]:
    """Bodies of the events that came to a connector, notifications left out."""
    bodies = [one.body for one in world.receiver.arrived(f"/{key}")]
    return [body for body in bodies if b'"stream"' in body]


def changed(body: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    event = json.loads(body)
    change(event)
    return json.dumps(event).encode()


class Compared:
    """One run of the comparison over lines."""

    def __init__(self, lines: Iterable[bytes], key: str = "webhook", **window: Any) -> None:
        compared = Comparison(Connector.objects.get(key=key), lines, **window)
        self.findings = list(compared.findings())
        self.summary = compared.summary

    @property
    def short(self) -> list[tuple[str, int]]:
        return [(one.what.value, one.seq) for one in self.findings]


@pytest.fixture
def auditor(db: None) -> Reader:
    return Reader(Role.AUDITOR)


@pytest.fixture
def three(world: World) -> list[Case]:
    """Three delivered events."""
    return [case for _ in range(3) for case in world.delivered()]


def test_what_really_arrived_is_complete(world: World, three: list[Case]) -> None:
    compared = Compared(got(world))
    assert compared.findings == []
    assert compared.summary.complete
    assert (compared.summary.first, compared.summary.last, compared.summary.events) == (1, 3, 3)
    newest = json.loads(got(world)[-1])["stream"]["head"]
    assert compared.summary.head == newest


def test_order_and_whitespace_of_the_export_mean_nothing(world: World, three: list[Case]) -> None:
    lines = [json.dumps(json.loads(body), indent=None).encode() + b"\r\n" for body in reversed(got(world))]
    assert Compared([b"\n", *lines, b"  \n"]).findings == []


@pytest.fixture
def splunk(world: World, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What a collector of Splunk's got."""
    monkeypatch.setenv("SIEM_TOKEN", "not-a-real-token-0123456789")
    connector("siem", world.receiver.url("/siem"), product="splunk", token_ref="env:SIEM_TOKEN")
    for _ in range(2):
        world.delivered("siem")
    return got(world, "siem")


def exported(envelope: bytes) -> bytes:
    """The line in which Splunk's search gives back what its collector got."""
    raw = json.dumps(json.loads(envelope)["event"])
    return json.dumps({"preview": False, "offset": 0, "result": {"_raw": raw, "index": "main"}}).encode()


def test_splunks_envelopes_and_its_search_export_are_read(splunk: list[bytes]) -> None:
    assert len(splunk) == 2
    assert Compared(splunk, "siem").findings == []
    assert Compared([exported(body) for body in splunk], "siem").findings == []
    preview = b'{"preview": true, "result": {"_raw": "{}"}}'
    end = b'{"preview": false, "lastrow": true}'
    assert Compared([preview, exported(splunk[1]), end], "siem").short == [("missing", 1)]


@pytest.mark.parametrize(
    "wrap",
    (
        lambda event: {"EventText": event, "MessageId": "m", "Part": 1, "Parts": 1},
        lambda event: {"message": event, "service": "s"},
        lambda event: {"id": "a", "type": "log", "attributes": {"message": event, "service": "s"}},
    ),
    ids=("Sentinel", "Datadog", "Datadog's search"),
)
def test_what_other_products_give_back_is_read(splunk: list[bytes], wrap: Callable[[str], Any]) -> None:
    events = [json.dumps(json.loads(body)["event"]) for body in splunk]
    lines = [json.dumps(wrap(event)).encode() for event in events]
    assert Compared(lines, "siem").findings == []
    assert Compared(lines[1:], "siem").short == [("missing", 1)]
    part = [json.dumps(wrap(events[0][:100])).encode()]
    assert Compared([*part, lines[1]], "siem").short == [("missing", 1)]


def test_everything_that_differs_is_listed_in_the_order_of_places(world: World, three: list[Case]) -> None:
    _, second, third = got(world)
    altered = changed(second, lambda event: event.update(alert_level="healthy-ish"))
    extra = changed(third, lambda event: event["stream"].update(seq=9))
    compared = Compared([third, altered, extra, third, third])
    assert compared.short == [("extra", 9), ("missing", 1), ("altered", 2), ("chain", 3), ("repeated", 3)]
    by = {one.what: one for one in compared.findings}
    assert by[What.MISSING].sentence.startswith("delivered according to this console, at 2")
    assert by[What.ALTERED].sentence == "is not what was sent: differs in alert_level"
    assert (by[What.ALTERED].line, by[What.ALTERED].case) == (2, three[1].case_id)
    # The event behind it still quotes what was sent: the file was changed, not the console.
    assert by[What.CHAIN].sentence == "quotes place 2 as it was sent, and not as the file holds it"
    assert by[What.REPEATED].sentence == "is there 3 times and was sent 1 time"
    assert by[What.EXTRA].sentence == "there is no such place in the stream, it ends with 3"
    assert compared.summary.differences == 5


def test_a_repeat_that_was_sent_as_often_is_no_difference(world: World) -> None:
    world.failed()
    world.approved()
    world.ran()
    compared = Compared(got(world))
    assert compared.short == [("repeated", 1)]
    assert compared.findings[0].sentence == "is there 2 times and was sent 2 times"
    assert compared.summary.complete


def test_missing_ones_say_what_became_of_them(world: World) -> None:
    world.failed(status=503)
    (case,) = world.failed(status=503)
    Case.objects.filter(pk=case.pk).update(state=CaseState.UNKNOWN)
    (case,) = world.failed(status=503)
    world.disposed(case)
    sentences = [one.sentence for one in Compared([]).findings]
    assert sentences == [
        "never delivered: 1 attempt failed",
        "unknown whether it arrived, after 1 attempt",
        "never delivered in 1 attempt: given up by two persons' word",
    ]


def test_a_part_of_the_stream_is_compared_by_itself(world: World, three: list[Case]) -> None:
    _, second, third = got(world)
    assert Compared([second, third], first=2).findings == []
    assert Compared([second], first=2, last=2).findings == []
    assert Compared([third], first=2).short == [("missing", 2)]


def test_other_events_of_the_same_index_are_counted_and_left_alone(world: World, three: list[Case]) -> None:
    connector("second", world.receiver.url("/second"))
    world.delivered("second")
    notification = world.receiver.arrived("/webhook")[0].body
    elsewhere = got(world, "second")
    lines = [notification, *got(world), *elsewhere, b'{"_time": 1}', b'{"event": "text"}', b"[]"]
    compared = Compared(lines)
    assert compared.findings == []
    assert (compared.summary.events, compared.summary.others) == (3, 5)


def test_an_event_robbed_of_its_place_is_known_by_its_plan(world: World, three: list[Case]) -> None:
    first, second, third = got(world)
    robbed = changed(second, lambda event: event.pop("stream"))
    stray = changed(second, lambda event: (event.pop("stream"), event.update(session_id="gordackdelivery-0")))
    compared = Compared([first, robbed, third, stray])
    assert compared.short == [("extra", 0), ("altered", 2), ("chain", 3)]
    assert compared.findings[1].sentence == "is not what was sent: differs in stream"


def test_an_event_from_before_streams_is_known_by_its_plan(world: World, three: list[Case]) -> None:
    """Such a case has no head, and its event no place; what it sent is compared all the same."""
    with transaction.atomic():
        guards.drop()
        old = three[0]
        Case.objects.filter(pk=old.pk).update(head_size=None, head_origin="")
        old.refresh_from_db()
        sent = events.event_for(old)
        Case.objects.filter(pk=old.pk).update(stream_digest=events.digest(sent))
        Case.objects.filter(pk=three[1].pk).update(stream_prev=events.digest(sent))
    *_, third = got(world)
    assert "stream" not in sent
    assert Compared([json.dumps(sent).encode(), third]).short == [("missing", 2)]


def test_events_that_a_restored_database_lost_are_told_apart(world: World, three: list[Case]) -> None:
    """Their places were given anew under another log's name: neither side was altered."""
    second = got(world)[1]
    lost = changed(second, lambda event: event["stream"]["head"].update(origin="old.example/log"))
    compared = Compared([*got(world), lost])
    assert compared.short == [("extra", 2)]
    assert "old.example/log" in compared.findings[0].sentence


def test_a_stream_that_was_tampered_with_here_shows(world: World, three: list[Case]) -> None:
    with transaction.atomic():
        guards.drop()
        Case.objects.filter(stream_seq=2).update(stream_digest="e" * 64)
    # The file's own events still quote each other: there is no break between them.
    compared = Compared(got(world))
    assert compared.short == [("altered", 2), ("chain", 3)]
    assert (
        compared.findings[1].sentence
        == "the stream itself does not quote place 2 as it is: verify the ledger"
    )
    with transaction.atomic():
        StreamHead.objects.update(seq=5)
    assert Compared(got(world)).short[-1] == ("chain", 5)


def test_a_log_that_was_rewritten_shows_against_the_head_the_receiver_holds(
    world: World, three: list[Case]
) -> None:
    """The rows of the stream may be left alone by whoever rewrites the entries below them."""
    with transaction.atomic():
        guards.drop()
        MerkleNode.objects.update(hash=b"\0" * 32)
    compared = Compared(got(world))
    assert compared.short == [("head", 0)]
    assert "History was rewritten" in compared.findings[0].sentence


def test_a_log_whose_end_was_cut_off_shows_against_the_head_the_receiver_holds(
    world: World, three: list[Case]
) -> None:
    size = json.loads(got(world)[-1])["stream"]["head"]["size"] - 1
    with transaction.atomic():
        guards.drop()
        LedgerHead.objects.update(size=size)
    assert Compared(got(world)).short == [("head", 0)]


def test_a_place_that_was_taken_away_here_shows(world: World, three: list[Case]) -> None:
    with transaction.atomic():
        guards.drop()
        Case.objects.filter(stream_seq=2).update(stream_seq=7)
    compared = Compared(got(world))
    assert ("extra", 2) in compared.short
    assert ("chain", 2) in compared.short


def test_text_that_no_database_takes_is_compared_like_any_other(world: World, three: list[Case]) -> None:
    first, second, third = got(world)
    for rotten in (
        {"session_id": "\0\ud800"},
        {"stream": {"seq": 2, "previous": "\ud800", "head": {"origin": "\x1b[2J", "size": 1.5}}},
        {"stream": {"seq": 2, "connector": ["webhook"], "head": "none"}, "\x1b[2J": 2**60},
    ):
        line = changed(second, lambda event, rotten=rotten: event.update(rotten))  # type: ignore[misc]
        findings = Compared([first, line, third]).findings
        assert findings
        assert all(one.sentence.isprintable() for one in findings)


def test_memory_is_bounded_by_batches(
    world: World, three: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answer whatever is held at once."""
    monkeypatch.setattr(stream_comparison, "AT_ONCE", 1)
    assert Compared(got(world)).findings == []
    monkeypatch.setattr(stream_files, "MAX_LINE", 100)
    with pytest.raises(InvalidInput, match="Line 1 is longer"):
        Compared(stream_files.lines_of(io.BytesIO(b"\n".join(got(world)))))


# --- the command ------------------------------------------------------------------------------------------------


def run(*args: str) -> tuple[int, str]:
    """Exit code and what was printed."""
    out = io.StringIO()
    try:
        call_command("reconcile_stream", *args, stdout=out)
    except CommandError as error:
        return error.returncode, out.getvalue() + str(error)
    return 0, out.getvalue()


def written(path: Path, lines: Iterable[bytes]) -> str:
    file = path / "export.jsonl"
    file.write_bytes(b"\n".join(lines))
    return str(file)


def test_the_command_says_complete_and_differences_by_its_exit_code(
    world: World, three: list[Case], tmp_path: Path
) -> None:
    code, said = run(written(tmp_path, got(world)), "--connector", "webhook")
    assert (code, said) == (
        0,
        "webhook: places 1 to 3, 3 events in the file, 0 other objects; "
        "0 missing, 0 extra, 0 altered, 0 repeated, 0 chain, 0 head\n",
    )
    code, said = run(written(tmp_path, got(world)[1:]), "--connector", "webhook")
    assert code == 1
    assert f"missing          1  {three[0].case_id}: delivered according to this console" in said
    assert said.endswith("The file is not complete: 1 differences.")


def test_the_command_answers_machines_line_by_line(world: World, three: list[Case], tmp_path: Path) -> None:
    code, said = run(written(tmp_path, got(world)[1:]), "--connector", "webhook", "--json")
    finding, summary = (json.loads(line) for line in said.splitlines()[:2])
    assert code == 1
    assert (finding["what"], finding["seq"], finding["state"]) == ("missing", 1, "delivered")
    counts = {"missing": 1, "extra": 0, "altered": 0, "repeated": 0, "chain": 0, "head": 0}
    assert summary["summary"]["counts"] == counts
    assert summary["summary"]["complete"] is False


@pytest.mark.parametrize(
    ("lines", "says"),
    (
        ((b'{"event_type": ',), "Line 1: Not JSON"),
        ((b"{}", b'{"a": 1, "a": 2}'), "Line 2: Not JSON as agreed"),
        ((b'{"a": 1}',), "holds no event of this stream"),
        ((b"\xff\xfe",), "Line 1: Not UTF-8"),
    ),
)
def test_what_cannot_be_read_is_exit_code_2(
    world: World, tmp_path: Path, lines: tuple[bytes, ...], says: str
) -> None:
    code, said = run(written(tmp_path, lines), "--connector", "webhook")
    assert code == 2
    assert says in said


def test_no_file_no_connector_no_place_is_exit_code_2(world: World, tmp_path: Path) -> None:
    assert run(str(tmp_path / "none"), "--connector", "webhook")[0] == 2
    assert run(str(tmp_path), "--connector", "webhook")[0] == 2
    assert run(written(tmp_path, []), "--connector", "nobody")[0] == 2
    assert run(written(tmp_path, []), "--connector", "webhook", "--from", "0")[0] == 2
    assert run(written(tmp_path, []), "--connector", "webhook")[0] == 0


# --- for who compares by himself ----------------------------------------------------------------------------------


def test_the_stream_is_read_over_the_api(world: World, three: list[Case], auditor: Reader) -> None:
    answer = auditor.get("/api/v1/connectors/webhook/stream")
    assert (answer["connector"], answer["from"], answer["to"], answer["newest"]) == ("webhook", 1, 3, 3)
    assert answer["next"] is None
    for body, item in zip(got(world), answer["items"], strict=True):
        stream = json.loads(body)["stream"]
        assert {name: item[name] for name in ("seq", "previous", "case", "leaf_index")} == {
            name: stream[name] for name in ("seq", "previous", "case", "leaf_index")
        }
        assert item["head"] == {name: stream["head"][name] for name in ("origin", "size")}
        assert item["digest"] == events.digest(json.loads(body))
        assert item["state"] == "delivered"


def test_the_stream_is_read_in_parts(
    world: World, three: list[Case], auditor: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "/api/v1/connectors/webhook/stream"
    part = auditor.get(address, **{"from": 2, "to": 2})
    assert ([item["seq"] for item in part["items"]], part["next"]) == ([2], None)
    assert auditor.get(address, **{"from": 9})["items"] == []
    monkeypatch.setattr(stream_views, "AT_MOST", 2)
    seen, at = [], 1
    while at:
        part = auditor.get(address, **{"from": at})
        seen += [item["seq"] for item in part["items"]]
        at = part["next"]
    assert seen == [1, 2, 3]


def test_a_wrong_question_about_a_stream_is_400_and_no_connector_404(world: World, auditor: Reader) -> None:
    address = "/api/v1/connectors/webhook/stream"
    for query in ("from=0", "to=x", "from=1&from=2"):
        auditor.get(f"{address}?{query}", 400)
    auditor.get("/api/v1/connectors/nobody/stream", 404)
    assert auditor.get(address)["newest"] == 0
    Reader(Role.VIEWER).get(address, 403)


def test_the_page_of_a_case_says_its_place(world: World) -> None:
    (case,) = world.delivered()
    page = signed_in(world.auditor).get(f"/console/cases/{case.case_id}/").content.decode()
    assert "Place in the stream" in page
    assert case.stream_digest in page
