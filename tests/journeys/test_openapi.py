"""The OpenAPI document is true: answers fit it, and requests made from it break nothing."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator

from evidence.enums import RouteState
from recovery.api import reconciliation_views, recovery_views, retry_views, run_views
from tests.builders import World, connector
from tests.endpoints import acts, client, prepared
from tests.evidence.connectors.fakes.jira import Jira
from tests.evidence.ledger_keys import Keys
from tests.http import A, B

JSON = dict | list | str | int | float

BY_VIEW = {one.view: one for one in acts()}


@pytest.fixture
def document(world: World) -> Any:
    """The document as it is served."""
    answer = client(world.auditor).get("/api/schema", HTTP_ACCEPT="application/vnd.oai.openapi+json")
    assert answer.status_code == 200
    return answer.json()


def differences(document: Any, method: str, path: str, answer: Any) -> list[str]:
    """Where an answer is not what the document says."""
    described = document["paths"][path][method]["responses"][str(answer.status_code)]["content"][
        "application/json"
    ]
    schema = {**described["schema"], "components": document["components"]}
    return [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        for error in Draft202012Validator(schema).iter_errors(answer.json())
    ]


def test_answers_of_every_act_fit_the_document(world: World, document: Any, keys: Keys) -> None:
    ready = prepared(world, keys)
    world.acknowledged(RouteState.RESOLVED)
    # From the end of the chain: a new playbook would supersede the one that is closed by.
    for view, one in reversed(BY_VIEW.items()):
        if view is reconciliation_views.Ask:
            continue  # This world's connector cannot be asked; one that can follows below.
        api, path = client(ready.person(one)), ready.path(one)
        done, refused = (
            api.post(path, body, format="json")
            for body in (ready.bodies[view], {"generated_by": 0, "notes": 0})
        )
        assert (done.status_code, refused.status_code) == (200, 400), (view, done.json())
        for answer in (done, refused):
            assert differences(document, "post", one.path, answer) == [], view


@pytest.mark.parametrize("hidden", (False, True))
def test_a_connectors_answer_fits_the_document(
    world: World, document: Any, monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    fake = Jira()
    fake.hang_up, fake.hidden = True, hidden
    monkeypatch.setenv("TICKET_TOKEN", fake.token)
    options = {"project": "PAY"}
    connector("tickets", fake.url, product="jira", token_ref="env:TICKET_TOKEN", options=options)
    (case,) = world.delivered("tickets")
    path = BY_VIEW[reconciliation_views.Ask].path
    answer = client(world.approver).post(path.format(case_id=case.case_id), {}, format="json")
    fake.stop()
    said = answer.json()
    assert (said["told"], said["case_state"]) == (
        ("not_there", "failed") if hidden else ("there", "delivered")
    )
    assert bool(said["reconciliation"]) is not hidden
    assert differences(document, "post", path, answer) == []


def test_a_live_runs_answer_fits_the_document(world: World, document: Any) -> None:
    world.failed()
    world.approved()
    path = BY_VIEW[run_views.StartRun].path
    answer = client(world.operator).post(path, {"dry_run": False}, format="json")
    assert answer.json()["retry_results"][0]["execution_record"]
    assert differences(document, "post", path, answer) == []


@pytest.mark.parametrize(
    "path",
    (
        B,
        f"{B}/routes",
        f"{B}/dashboard",
        f"{A}/worker-runs",
        f"{A}/worker-dashboard",
        "/evidence",
        "/api/v1/cases",
        "/console/config",
    ),
)
def test_lists_fit_the_document(path: str, world: World, document: Any) -> None:
    world.failed()
    world.approved()
    world.ran()
    assert differences(document, "get", path, client(world.auditor).get(path)) == []


def attacks(document: Any) -> Iterator[Any]:
    """Every operation, as something that makes requests."""
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        yield result.ok()


@pytest.mark.filterwarnings("ignore")
def test_requests_made_from_the_document_break_nothing(world: World, document: Any, keys: Keys) -> None:
    ready = prepared(world, keys)
    people = {
        retry_views.Decide: world.approver,
        run_views.StartRun: world.operator,
        recovery_views.CloseRecovery: world.analyst,
    }
    by_path = {BY_VIEW[view].path: client(person) for view, person in people.items()}
    analyst = client(ready.world.analyst)
    called = 0

    def caller(api: Any) -> Callable[[Any], None]:
        def call(case: Any) -> None:
            nonlocal called
            query = urlencode(case.query or {}, doseq=True, errors="replace")
            body = json.dumps(case.body).encode() if isinstance(case.body, JSON) else b""
            path = f"{case.formatted_path}?{query}"
            answer = api.generic(case.method, path, body, content_type="application/json")
            called += 1
            assert answer.status_code < 500 or case.path == "/readyz", (path, body[:300])

        return call

    for operation in attacks(document):
        api = by_path.get(operation.path, analyst)
        few = settings(
            max_examples=5,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        few(given(operation.as_strategy())(caller(api)))()
    assert called > 50
