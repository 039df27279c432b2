"""Reading evidence over HTTP: who may, what is asked for, what comes back (CONTRACT §1.4, §9; W21, W23)."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator

from evidence.api import history_urls
from evidence.documents import KINDS, NOTIFICATION_ACK, PERSON
from evidence.domain import clock, history, people, records
from evidence.enums import CaseState, Role
from evidence.filtersets import CaseFilter, EvidenceFilter, HistoryFilter, RouteFilter
from evidence.models import AttemptAnswer, Case, CaseLink, Record, RecordKey, Route, SealEntry
from recovery.documents import EXECUTION_CLAIM, EXECUTION_RECORD
from tests.builders import World, person
from tests.evidence.documents import KIND_TABLE, append, draft, fill, when

pytestmark = pytest.mark.django_db

B = "/runtime/go-pilot/rollback-drill-notifications"
EXPORTS = ("/api/v1/exports/history.jsonl", "/api/v1/exports/history.csv")
READS = (
    B,
    f"{B}/routes",
    "/evidence",
    "/evidence/x",
    "/api/v1/records/x/bytes",
    "/api/v1/records/x/seal",
    "/api/v1/cases",
    "/api/v1/cases/x",
)


class Reader:
    """A signed-in person who reads."""

    def __init__(self, *roles: Role) -> None:
        self.person = person(*roles)
        token = people.issue_token(self.person, by=None, clock=clock.system_clock)
        self.client = Client(headers={"authorization": f"Bearer {token}"})

    def get(self, path: str, expect: int = 200, **sent: Any) -> Any:
        """JSON of an answer with this status."""
        answer = self.client.get(path, sent)
        assert answer.status_code == expect, answer.content
        return answer.json()


@pytest.fixture
def auditor(db: None) -> Reader:
    return Reader(Role.AUDITOR)


# --- who may ------------------------------------------------------------------------------------------------------


def test_the_lists_above_name_every_address() -> None:
    served = {str(one.pattern) for one in history_urls.urlpatterns}
    named = {path.lstrip("/") for path in (*READS, *EXPORTS)}
    assert len(served) == len(named)
    assert {path.rsplit("/x", 1)[0] for path in named} == {path.rsplit("/<", 1)[0] for path in served}


@pytest.mark.parametrize("path", (*READS, *EXPORTS))
def test_nobody_reads_without_a_name(path: str) -> None:
    answer = Client().get(path)
    assert (answer.status_code, answer["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("path", (*READS, *EXPORTS))
def test_viewers_and_people_without_a_role_read_no_evidence(path: str) -> None:
    for reader in (Reader(Role.VIEWER), Reader()):
        assert reader.get(path, expect=403)["code"] == "role_required"


def test_exports_are_for_analysts_and_auditors() -> None:
    for role in (Role.APPROVER, Role.OPERATOR, Role.ADMINISTRATOR):
        reader = Reader(role)
        reader.get(B)
        for path in EXPORTS:
            assert reader.get(path, expect=403)["code"] == "role_required"
    for role in (Role.ANALYST, Role.AUDITOR):
        for path in EXPORTS:
            assert Reader(role).client.get(path).status_code == 200


# --- what is asked for --------------------------------------------------------------------------------------------


LISTS = {
    B: HistoryFilter,
    "/evidence": EvidenceFilter,
    "/api/v1/cases": CaseFilter,
    f"{B}/routes": RouteFilter,
}


@pytest.mark.parametrize("path", LISTS)
def test_control_characters_in_any_filter_are_refused_by_name(path: str, auditor: Reader) -> None:
    for name in LISTS[path].base_filters:
        for value in ("a\x07b", "a\u202eb", "a\u200bb", "a\u00adb", "a\U000e0041b", "a\U000e0000b"):
            problem = auditor.get(path, expect=400, **{name: value})
            assert list(problem["errors"]) == [name], problem
            assert value not in json.dumps(problem, ensure_ascii=False)
        assert auditor.get(path, expect=400, **{name: "a\0b"})["code"] in ("invalid", "invalid_text")


@pytest.mark.parametrize(
    ("path", "name", "value"),
    (
        (B, "delivery_success", "maybe"),
        (B, "delivery_success", "1"),
        (B, "delivery_success", "yes"),
        (B, "alert_level", "no such!"),
        (B, "include", "some"),
        (B, "metadata_kind", "nonsense"),
        (B, "connector_delivery_source", "no such!"),
        (B, "connector_delivery_source", "x" * 121),
        (B, "provider", "no spaces please"),
        (B, "provider", "x" * 41),
        (B, "approval_state", "!"),
        (B, "case", "x" * 201),
        (B, "created_after", "yesterday"),
        (B, "created_before", "2026-13-01"),
        (B, "created_after", "0001-01-01T00:00:00+14:00"),
        (B, "limit", "0"),
        (B, "limit", "501"),
        (B, "limit", "ten"),
        (B, "limit", "9" * 5_000),
        (B, "offset", "-1"),
        (B, "offset", "10001"),
        (B, "offset", "1e2"),
        (B, "cursor", "nonsense"),
        (B, "cursor", "x" * 121),
        ("/evidence", "metadata_kind", "nonsense"),
        ("/evidence", "limit", "-5"),
        ("/api/v1/cases", "state", "broken"),
        ("/api/v1/cases", "settled", "perhaps"),
        ("/api/v1/cases", "created_before", "soon"),
        ("/api/v1/cases", "cursor", "nonsense"),
        ("/api/v1/cases", "limit", "501"),
        (f"{B}/routes", "action", "shout"),
        (f"{B}/routes", "offset", "10001"),
    ),
)
def test_bad_values_are_400_with_the_field(path: str, name: str, value: str, auditor: Reader) -> None:
    problem = auditor.get(path, expect=400, **{name: value})
    assert list(problem["errors"]) == [name]
    assert problem["code"] == "invalid"
    assert problem["detail"]


def test_a_filter_given_twice_is_refused(auditor: Reader) -> None:
    problem = auditor.get(B, expect=400, provider=["splunk", "jira_eu"])
    assert problem["errors"] == {"provider": ["Is given more than once."]}


def test_unknown_parameters_are_named_in_a_list_and_refused_in_an_export(auditor: Reader) -> None:
    assert auditor.get(B, aproval_state="denied", limit=1)["ignored_keys"] == ["aproval_state"]
    for path in EXPORTS:
        assert auditor.get(path, expect=400, aproval_state="denied")["code"] == "unknown_keys"


@pytest.mark.parametrize("path", EXPORTS)
def test_a_copied_query_of_the_history_exports_all_of_it(path: str, auditor: Reader) -> None:
    fill(30)
    whole = b"".join(auditor.client.get(path, {"provider": "splunk"}).streaming_content)
    paged = {"provider": "splunk", "limit": "1", "offset": "3", "cursor": "nonsense"}
    answer = auditor.client.get(path, paged)
    assert answer.status_code == 200
    assert b"".join(answer.streaming_content) == whole
    assert whole.count(b"\n") > 2


def test_empty_values_are_no_filters(auditor: Reader) -> None:
    fill(30)
    sent = dict.fromkeys((*HistoryFilter.base_filters, "limit", "offset", "cursor"), "")
    assert auditor.get(B, **sent)["total"] == auditor.get(B)["total"] > 0


def test_values_are_compared_in_their_one_form(auditor: Reader) -> None:
    # Enough for the rarest word of every kind to occur.
    fill(16 * len(KIND_TABLE))
    cases = RecordKey.objects.filter(name="case", value__endswith=".jira_eu").values_list("value", flat=True)
    # Some kinds with a case are shown only when they are asked for.
    case = next(case for case in cases if auditor.get(B, case=case)["items"])
    for name, one, other in (
        ("provider", "jira_eu", " Jira-EU "),
        ("delivery_success", "true", "True"),
        ("actor", "cleo", " Cleo "),
        ("case", case, case.replace("jira_eu", "Jira-EU")),
        ("alert_level", "critical", "CRITICAL"),
        ("execution_status", "outcome_unknown", "Outcome-Unknown"),
        ("created_after", "2026-01-01T00:01:00+00:00", "2026-01-01T02:01:00+02:00"),
    ):
        first = auditor.get(B, **{name: one})
        assert first["items"]
        assert auditor.get(B, **{name: other})["items"] == first["items"]


def test_a_plus_sign_that_nobody_encoded_still_is_one(auditor: Reader) -> None:
    fill(80)
    answer = auditor.client.get(f"{B}?created_after=2026-01-01T00:00:20.000000+00:00")
    assert answer.status_code == 200
    assert answer.json()["total"] == auditor.get(B, created_after="2026-01-01T00:00:20+00:00")["total"] > 0


def test_kinds_of_later_phases_find_nothing(auditor: Reader) -> None:
    """Reference clients offer them in their lists."""
    fill(30)
    for sent in (
        {"metadata_kind": "go-backend-rollback-drill-release-closeout-summary"},
        {"connector_delivery_source": "go_backend_rollback_drill_worker_health_alert"},
        {"connector_delivery_source": "nonsense"},
        {"alert_level": "purple"},
        {"approval_state": "nonsense"},
        {"acknowledgement_state": "outstanding"},
    ):
        assert auditor.get(B, **sent)["items"] == []


# --- history ------------------------------------------------------------------------------------------------------


def test_history_has_the_contracts_shape(auditor: Reader) -> None:
    fill(60)
    page = auditor.get(B, limit=3, offset=2)
    assert list(page) == [
        "schema_version",
        "product",
        "items",
        "total",
        "total_is_exact",
        "limit",
        "offset",
        "cursor",
        "ignored_keys",
    ]
    assert page["schema_version"] == "cavra.go-backend-pilot.rollback-drill-notification-history.v1"
    assert (page["product"], page["limit"], page["offset"]) == ("CAVRA", 3, 2)
    assert (
        page["total"]
        == Record.objects.filter(kind__in=[k.name for k in KINDS.values() if k.contract]).count()
    )
    assert page["total_is_exact"] is True
    for item in page["items"]:
        record = Record.objects.get(record_id=item["session_id"])
        assert item == history.envelope(record)
        assert (item["leaf_index"], item["record_hash"]) == (record.index, record.digest)


def test_include_all_shows_everything(auditor: Reader) -> None:
    fill(60)
    everything = auditor.get(B, include="all", limit=500)
    assert everything["total"] == len(everything["items"]) == Record.objects.count()
    kinds = {item["metadata_kind"] for item in auditor.get(B, limit=500)["items"]}
    assert EXECUTION_CLAIM.name not in kinds
    assert EXECUTION_RECORD.name in kinds
    assert auditor.get(B, metadata_kind=EXECUTION_CLAIM.name)["total"] > 0


def test_a_cursor_walks_over_http_while_records_are_appended(auditor: Reader) -> None:
    fill(40)
    before = [record.record_id for record in history.stream(history.Query())]
    met: list[str] = []
    cursor, more = "", 40
    while cursor is not None:
        page = auditor.get(B, limit=6, cursor=cursor)
        met += [item["session_id"] for item in page["items"]]
        cursor = page["cursor"]
        fill(3, more)
        more += 3
    assert met == before


def test_evidence_lists_every_kind(auditor: Reader) -> None:
    fill(400)
    assert auditor.get("/evidence")["total"] == Record.objects.count()
    append(draft(EXECUTION_RECORD, 161), draft(EXECUTION_RECORD, 162))
    found = auditor.get("/evidence", signer="ben", metadata_kind=EXECUTION_RECORD.name)
    assert {item["signer"] for item in found["items"]} == {"ben"}
    assert auditor.get("/evidence", approval_state="denied")["items"]
    assert auditor.get("/evidence", limit=1)["cursor"]


def test_one_record_is_read_by_its_id(auditor: Reader) -> None:
    (record,) = append(draft(NOTIFICATION_ACK, 1))
    assert auditor.get(f"/evidence/{record.record_id}") == history.envelope(record)


@pytest.mark.parametrize("name", ("nothing", "a%00b", "..", "x" * 300, "%E2%80%AE", "'; DROP"))
def test_what_names_nothing_is_404(name: str, auditor: Reader) -> None:
    for path, code in (
        (f"/evidence/{name}", "record_not_found"),
        (f"/api/v1/records/{name}/bytes", "record_not_found"),
        (f"/api/v1/records/{name}/seal", "record_not_found"),
        (f"/api/v1/cases/{name}", "case_not_found"),
    ):
        assert auditor.get(path, expect=404)["code"] == code


# --- exact bytes --------------------------------------------------------------------------------------------------


def test_bytes_and_seal_prove_themselves(auditor: Reader) -> None:
    """What a verifier without our code does: digests over what was served."""
    built = draft(NOTIFICATION_ACK, 1)
    (record,) = append(built)
    body = auditor.client.get(f"/api/v1/records/{record.record_id}/bytes")
    assert body.content == built.body
    assert body["content-type"] == "application/json"
    assert body["x-record-hash"] == hashlib.sha256(body.content).hexdigest() == record.digest
    seal = auditor.client.get(f"/api/v1/records/{record.record_id}/seal")
    stored = SealEntry.objects.get(index=record.index)
    assert seal.content == bytes(stored.entry)
    assert (
        hashlib.sha256(b"\0" + seal.content).hexdigest()
        == seal["x-leaf-hash"]
        == bytes(stored.leaf_hash).hex()
    )
    assert json.loads(seal.content)["body"]["sha256"] == body["x-record-hash"]
    assert seal["x-leaf-index"] == str(record.index)


def test_unchanged_bytes_do_not_travel_again(auditor: Reader) -> None:
    (record,) = append(draft(NOTIFICATION_ACK, 1))
    for part in ("bytes", "seal"):
        path = f"/api/v1/records/{record.record_id}/{part}"
        tag = auditor.client.get(path)["etag"]
        again = auditor.client.get(path, headers={"if-none-match": tag})
        assert (again.status_code, again.content, again["etag"]) == (304, b"", tag)
        assert auditor.client.get(path, headers={"if-none-match": '"other"'}).status_code == 200


def test_erased_bytes_are_gone_and_their_seal_stays(auditor: Reader) -> None:
    built = draft(PERSON, 1)
    (sealed,) = append(draft(PERSON, 2))
    index = sealed.index + 1
    Record.objects.create(
        index=index,
        record_id=built.record_id,
        kind=PERSON.name,
        created_at=when(1),
        body=None,
        digest=built.digest,
        size=len(built.body),
    )
    SealEntry.objects.create(index=index, entry=b"{}", leaf_hash=b"\0" * 32)
    assert auditor.get(f"/api/v1/records/{built.record_id}/bytes", expect=410)["code"] == "erased"
    assert auditor.client.get(f"/api/v1/records/{built.record_id}/seal").content == b"{}"
    assert auditor.get(f"/evidence/{built.record_id}")["erased"] is True


# --- cases --------------------------------------------------------------------------------------------------------


def test_cases_are_listed_and_filtered(world: World, auditor: Reader) -> None:
    (failed,) = world.failed()
    world.approved()
    world.ran()
    (second,) = world.failed()
    page = auditor.get("/api/v1/cases")
    assert [item["case"] for item in page["items"]] == [second.case_id, failed.case_id]
    assert (page["total"], page["total_is_exact"], page["cursor"]) == (2, True, None)
    newest = page["items"][0]
    assert (newest["state"], newest["settled"], newest["settled_at"]) == ("failed", False, None)
    assert (newest["provider"], newest["provider_product"]) == ("webhook", "webhook")
    assert newest["case"] == f"{newest['delivery_id']}.webhook"
    assert newest["audit_id"] == second.package.audit_id
    assert newest["created_by"] == world.analyst.username
    assert newest["created_at"] == records.timestamp(second.created_at)

    def found(**sent: Any) -> list[str]:
        return [item["case"] for item in auditor.get("/api/v1/cases", **sent)["items"]]

    assert found(state="delivered") == found(settled="true") == [failed.case_id]
    assert found(state="failed") == found(settled="false") == [second.case_id]
    assert found(provider="WebHook") == [second.case_id, failed.case_id]
    assert found(provider="splunk") == found(state=CaseState.ABANDONED) == []
    assert found(audit_id=failed.package.audit_id) == [failed.case_id]
    assert found(created_after=records.timestamp(second.created_at)) == [second.case_id]
    assert found(created_before=records.timestamp(second.created_at)) == [failed.case_id]
    first = auditor.get("/api/v1/cases", limit=1)
    assert [item["case"] for item in first["items"]] == [second.case_id]
    assert found(limit=1, cursor=first["cursor"]) == [failed.case_id]


def test_a_case_shows_attempts_answers_and_its_chain(world: World, auditor: Reader) -> None:
    world.receiver.behave("/webhook", status=503, body=b"upstream is away")
    (case,) = world.failed()
    world.approved()
    world.ran()
    shown = auditor.get(f"/api/v1/cases/{case.case_id}")
    assert (shown["case"], shown["state"], shown["settled"]) == (case.case_id, "delivered", True)
    first, second = shown["attempts"]
    assert (first["attempt_no"], first["outcome"], first["status_code"]) == (1, "failed", 503)
    assert (second["attempt_no"], second["outcome"]) == (2, "delivered")
    assert first["failure_class"] == "unavailable"
    kept = {
        answer.attempt.number: answer.excerpt for answer in AttemptAnswer.objects.select_related("attempt")
    }
    assert kept
    assert {1: first["answer_excerpt"], 2: second["answer_excerpt"]} == {1: "", 2: "", **kept}
    links = list(CaseLink.objects.filter(case_id=case.case_id).order_by("n"))
    assert [link["n"] for link in shown["records"]] == [link.n for link in links]
    assert [link["leaf_index"] for link in shown["records"]] == [link.index for link in links]
    assert shown["records_cursor"] is None
    for link in shown["records"]:
        record = auditor.get(link["href"])
        assert case.case_id in record["cases"]
        assert (record["session_id"], record["metadata_kind"]) == (link["id"], link["kind"])
        assert (record["record_hash"], record["created_at"]) == (link["hash"], link["at"])


def test_a_long_chain_is_paged(world: World, auditor: Reader) -> None:
    (case,) = world.failed()
    path = f"/api/v1/cases/{case.case_id}"
    whole = auditor.get(path)["records"]
    assert len(whole) >= 2
    first = auditor.get(path, limit=1)
    assert (first["records"], first["records_cursor"]) == (whole[:1], 1)
    assert auditor.get(path, after=1)["records"] == whole[1:]
    for name, value in (("after", "-1"), ("limit", "501"), ("limit", "x"), ("after", str(2**31))):
        assert list(auditor.get(path, expect=400, **{name: value})["errors"]) == [name]


# --- routes -------------------------------------------------------------------------------------------------------


def test_routes_show_state_and_age(world: World, auditor: Reader) -> None:
    world.announced()
    page = auditor.get(f"{B}/routes")
    assert page["total"] == 2
    assert {item["owner"] for item in page["items"]} == {"release-governance", "payments-platform"}
    route = Route.objects.get(owner="payments-platform")
    shown = next(item for item in page["items"] if item["owner"] == route.owner)
    assert shown["route_id"] == route.route_id
    assert (shown["schedule_id"], shown["plan_id"]) == ("payments-monthly", route.plan.plan_id)
    assert (shown["acknowledgement_state"], shown["acknowledged"], shown["acknowledged_by"]) == (
        "outstanding",
        False,
        "",
    )
    assert shown["due_at"] == records.timestamp(
        route.created_at + timedelta(minutes=route.acknowledgement_minutes)
    )
    assert (shown["age_minutes"], shown["breached"]) == (0, False)

    def owners(**sent: Any) -> set[str]:
        return {item["owner"] for item in auditor.get(f"{B}/routes", **sent)["items"]}

    assert owners(owner="PLATFORM") == {"payments-platform"}
    assert owners(owner="head-of") == owners(schedule_id="payments-monthly") == owners(provider="webhook")
    assert owners(action="deliver") == owners(category=route.category)
    assert len(owners(action="deliver")) == 2
    assert (
        owners(action="suppress")
        == owners(schedule_id="x")
        == owners(provider="splunk")
        == owners(category="x")
        == set()
    )
    assert (
        len(auditor.get(f"{B}/routes", limit=1)["items"])
        == len(auditor.get(f"{B}/routes", offset=1)["items"])
        == 1
    )


def test_a_route_is_breached_from_its_time_on_until_it_is_answered(
    world: World, auditor: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.announced()
    created = Route.objects.earliest("created_at").created_at

    def ages(minutes: int) -> set[tuple[int, bool]]:
        monkeypatch.setattr(clock, "system_clock", lambda: created + timedelta(minutes=minutes))
        return {(item["age_minutes"], item["breached"]) for item in auditor.get(f"{B}/routes")["items"]}

    assert ages(60) == {(60, False)}
    assert ages(61) == {(61, True)}
    world.acknowledged()
    assert ages(600) == {(0, False)}
    assert {item["acknowledged_by"] for item in auditor.get(f"{B}/routes")["items"]} == {
        world.analyst.username
    }


# --- costs and side effects ---------------------------------------------------------------------------------------


def test_the_number_of_queries_does_not_grow(auditor: Reader) -> None:
    counts: dict[str, list[int]] = {}
    for first, last in ((0, 1), (1, 10), (10, 300)):
        append(
            *(
                draft(NOTIFICATION_ACK, n, provider="splunk", schedule_id="drill-3")
                for n in range(first, last)
            )
        )
        for sent in (
            f"{B}?limit=500",
            f"{B}?limit=500&provider=splunk&q=drill-3",
            "/evidence?limit=500",
            *EXPORTS,
        ):
            with CaptureQueriesContext(connection) as seen:
                answer = auditor.client.get(sent)
                assert answer.status_code == 200
                b"".join(answer.streaming_content) if answer.streaming else answer.content
            counts.setdefault(sent, []).append(len(seen))
    for path, seen_counts in counts.items():
        assert len(set(seen_counts)) == 1, (path, seen_counts)
        assert seen_counts[0] <= 14, (path, seen_counts)


def test_lists_of_cases_and_routes_cost_the_same_for_more(world: World, auditor: Reader) -> None:
    def costs() -> list[int]:
        found = []
        newest = Case.objects.latest("pk").case_id
        for path in ("/api/v1/cases", f"{B}/routes", f"/api/v1/cases/{newest}"):
            with CaptureQueriesContext(connection) as seen:
                auditor.get(path)
            found.append(len(seen))
        return found

    world.failed()
    before = costs()
    world.approved()
    world.ran()
    for _ in range(2):
        world.delivered("webhook")
    assert costs() == before


def test_no_read_writes(world: World, auditor: Reader) -> None:
    """Every statement of every read is a SELECT, but the one that notes who read what (P14)."""
    (case,) = world.failed()
    record = Record.objects.latest("index")
    head = history.page(history.Query(everything=True)).total
    for path in (
        B,
        f"{B}?q={record.digest[:12]}",
        f"{B}/routes",
        "/evidence",
        f"/evidence/{record.record_id}",
        f"/api/v1/records/{record.record_id}/bytes",
        f"/api/v1/records/{record.record_id}/seal",
        "/api/v1/cases",
        f"/api/v1/cases/{case.case_id}",
        *EXPORTS,
    ):
        with CaptureQueriesContext(connection) as seen:
            answer = auditor.client.get(path)
            assert answer.status_code == 200
            b"".join(answer.streaming_content) if answer.streaming else answer.content
        assert seen.captured_queries
        for query in seen.captured_queries:
            assert query["sql"].startswith(("SELECT", 'INSERT INTO "evidence_accesslogentry"')), query["sql"]
    assert history.page(history.Query(everything=True)).total == head


@pytest.mark.parametrize("method", ("post", "put", "patch", "delete"))
@pytest.mark.parametrize("path", (*READS, *EXPORTS))
def test_nothing_but_reading_is_served(path: str, method: str, auditor: Reader) -> None:
    answer = getattr(auditor.client, method)(path, data={}, content_type="application/json")
    assert answer.status_code == 405


def test_the_schema_describes_filters_and_pages_without_warnings() -> None:
    GENERATOR_STATS.reset()
    schema = SchemaGenerator(patterns=history_urls.urlpatterns).get_schema(request=None, public=True)
    assert not GENERATOR_STATS
    for path, filters in LISTS.items():
        described = {one["name"] for one in schema["paths"][path]["get"]["parameters"]}
        assert filters.base_filters.keys() < described
    for path in EXPORTS:
        described = {one["name"] for one in schema["paths"][path]["get"]["parameters"]}
        assert described == HistoryFilter.base_filters.keys()
    assert {"400", "401", "403"} < schema["paths"][B]["get"]["responses"].keys()


def test_times_of_filters_are_utc() -> None:
    filters = HistoryFilter({"created_after": "2026-06-01"}, queryset=Record.objects.none())
    assert filters.is_valid()
    assert filters.query.created_after == datetime(2026, 6, 1, tzinfo=UTC)
