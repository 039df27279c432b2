"""Connectors in the admin: each product's own fields, references that say whether they are set, and Test (P18, P22)."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from evidence.connectors import probing
from evidence.connectors.failures import STEPS
from evidence.connectors.products import PRODUCTS
from evidence.connectors.transports.http import PROXY_CREDENTIAL
from evidence.domain import canaries, configuration, connector_tests
from evidence.domain.clock import system_clock
from evidence.domain.connector_tests import Word
from evidence.enums import Product, Role
from evidence.models import Canary, Connector, Person
from tests.builders import connector, person
from tests.evidence.connectors.authority import DAY, Authority
from tests.evidence.connectors.proxy import Proxy
from tests.evidence.connectors.receiver import Receiver as Bytes
from tests.evidence.connectors.receiver import answer
from tests.evidence.test_admin import address, errors_of, fields_of
from tests.evidence.watch import appended
from tests.processes import closed_port
from tests.receiver import Receiver

pytestmark = pytest.mark.django_db
URL = "https://siem.example.com/collect"
ADD = "evidence_connector"


@pytest.fixture
def administrator(db: None) -> Person:
    return person(Role.ADMINISTRATOR)


@pytest.fixture
def client(administrator: Person) -> Client:
    client = Client()
    client.force_login(administrator)
    return client


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def encrypted(authority: Authority) -> Iterator[Callable[..., Bytes]]:
    """``encrypted(context)`` starts a receiver that speaks TLS."""
    started: list[Bytes] = []

    def start(tls: ssl.SSLContext) -> Bytes:
        started.append(Bytes(lambda _request, _sock: answer(), tls))
        return started[-1]

    yield start
    for one in started:
        one.close()


# --- the form -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", list(PRODUCTS))
def test_a_product_asks_for_its_own_settings(client: Client, product: Product) -> None:
    page = client.get(address(ADD), {"product": product})
    form = page.context["adminform"].form
    adapter = PRODUCTS[product]
    assert {name.removeprefix("option_") for name in form.fields if name.startswith("option_")} == set(
        adapter.options
    )
    assert form["product"].value() == product
    assert all(
        form.fields[f"option_{name}"].required == option.required for name, option in adapter.options.items()
    )
    assert ("signing_ref" in form.fields) == adapter.signs
    assert ("url" in form.fields) != adapter.secret_url
    assert adapter.earned in page.content.decode().replace("&#x27;", "'").replace("&quot;", '"')
    assert all(f"?product={other}" in page.content.decode() for other in PRODUCTS)


def test_settings_of_a_product_are_saved_by_name(client: Client) -> None:
    sent = fields_of(client.get(address(ADD), {"product": "jira"}))
    sent |= {"key": "tickets", "url": URL, "token_ref": "env:JIRA", "option_project": "OPS"}
    with appended() as log:
        assert client.post(address(ADD), sent).status_code == 302
    row = Connector.objects.get()
    assert (row.product, row.options) == ("jira", {"project": "OPS"})
    assert "options" in log.payloads[0]["changed_fields"]
    page = client.get(address(ADD, row.pk))
    assert page.context["adminform"].form["option_project"].value() == "OPS"
    client.post(address(ADD, row.pk), {**fields_of(page), "option_issue_type": "Bug"})
    row.refresh_from_db()
    assert row.options == {"project": "OPS", "issue_type": "Bug"}


@pytest.mark.parametrize(
    ("wrong", "field"),
    (
        ({"option_project": ""}, "option_project"),
        ({"option_project": "lower case"}, "option_project"),
        ({"option_deployment": "moon"}, "option_deployment"),
        ({"announce_through": "nobody_there"}, "announce_through"),
        ({"ca_pem": "no certificate"}, "ca_pem"),
        ({"proxy_url": "socks5://proxy.example.com"}, "proxy_url"),
        ({"proxy_authorization_ref": "env:PROXY"}, "proxy_authorization_ref"),
    ),
)
def test_a_wrong_setting_is_refused_beside_its_field(
    client: Client, wrong: dict[str, str], field: str
) -> None:
    sent = fields_of(client.get(address(ADD), {"product": "jira"}))
    sent |= {"key": "tickets", "url": URL, "token_ref": "env:JIRA", "option_project": "OPS", **wrong}
    page = client.post(address(ADD), sent)
    assert errors_of(page) == {field}
    assert not Connector.objects.exists()


def test_another_product_asks_for_what_it_needs_before_it_is_saved(client: Client) -> None:
    row = connector("hook", URL, token_ref="env:TOKEN")
    sent = fields_of(client.get(address(ADD, row.pk)))
    page = client.post(address(ADD, row.pk), {**sent, "product": "jira"})
    assert errors_of(page) == {"option_project"}
    assert page.context["adminform"].form["product"].value() == "jira"
    client.post(address(ADD, row.pk), {**sent, "product": "jira", "option_project": "OPS"})
    row.refresh_from_db()
    assert (row.product, row.options) == ("jira", {"project": "OPS"})


def test_a_connector_is_announced_through_another_one(client: Client) -> None:
    connector("chat", URL)
    row = connector("siem", URL)
    page = client.get(address(ADD, row.pk))
    assert [key for key, _ in page.context["adminform"].form.fields["announce_through"].choices] == [
        "",
        "chat",
    ]
    client.post(address(ADD, row.pk), {**fields_of(page), "announce_through": "chat"})
    row.refresh_from_db()
    assert row.announce_through == "chat"


# --- secrets ------------------------------------------------------------------------------------------------------


def test_references_say_whether_they_are_set_and_never_to_what(
    client: Client, monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path
) -> None:
    settings.CAVRA_SECRETS_DIR = str(tmp_path)
    (tmp_path / "key").write_text("hunter2-from-a-file")
    monkeypatch.setenv("HEC", "hunter2-secret-value")
    row = connector("siem", URL, token_ref="env:HEC", api_key_ref="file:key", signing_ref="env:NOT_THERE")
    page = client.get(address(ADD, row.pk)).content.decode()
    assert page.count("Now set.") == 2
    assert "Now not set: it names an environment variable that is not set" in page
    assert "hunter2" not in page


@pytest.mark.parametrize(
    ("field", "typed"),
    (
        ("token_ref", "hunter2"),
        ("signing_ref", "whsec_hunter2"),
        ("url_ref", "https://hooks.example.com/hunter2"),
        ("proxy_authorization_ref", "Basic hunter2"),
        ("url", "https://root:hunter2@siem.example.com/"),
        ("title", "it is hunter2-configured\u202e"),
    ),
)
def test_w28_what_was_typed_into_the_wrong_field_is_not_shown_again(
    client: Client, monkeypatch: pytest.MonkeyPatch, field: str, typed: str
) -> None:
    monkeypatch.setenv("HEC", "hunter2-configured")
    connector("siem", URL, token_ref="env:HEC")
    page = client.post(address(ADD), {**fields_of(client.get(address(ADD))), "key": "new", field: typed})
    assert field in errors_of(page)
    assert "hunter2" not in page.content.decode()


# --- test ---------------------------------------------------------------------------------------------------------


def steps_of(client: Client, row: Connector) -> dict[str, tuple[str, str]]:
    """Steps of a test by name: what became of each, and the sentence."""
    page = client.post(reverse("admin:evidence_connector_test", args=[row.pk]))
    assert page.status_code == 200
    assert all(step.said in page.content.decode().replace("&#x27;", "'") for step in page.context["steps"])
    return {step.name: (step.word.value, step.said) for step in page.context["steps"]}


def words(steps: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {name: word for name, (word, _) in steps.items()}


NOT_REACHED = ("not reached", "An earlier step failed.")


def test_a_test_goes_through_every_step_and_sends_a_canary_alone(
    client: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEC", "hunter2-secret-value")
    monkeypatch.setattr(canaries, "PAUSE", DAY)
    row = connector("siem", receiver.url("/hook"), token_ref="env:HEC")
    before = Connector.objects.values().get()
    with appended() as log:
        steps = steps_of(client, row)
    assert words(steps) == dict.fromkeys(
        ("Secrets", "Configuration", "Host name", "Address", "Connection", "Canary"), "ok"
    )
    assert steps["Secrets"][1] == "Set: token_ref."
    assert steps["Address"][1] == "127.0.0.1 may be reached."
    assert [kind for kind in log.kinds if "canary" not in kind] == []
    assert len(log.kinds) == 1
    (arrived,) = receiver.arrived("/hook")
    assert b"canary" in arrived.body
    assert Connector.objects.values().get() == before
    # A second one at once has to wait; that is no failure of the connector.
    assert steps_of(client, row)["Canary"][0] == "not reached"


def test_w27_a_missing_secret_ends_the_test_before_anything_is_opened(
    client: Client, receiver: Receiver
) -> None:
    row = connector("siem", receiver.url("/hook"), token_ref="env:NOT_THERE")
    steps = steps_of(client, row)
    assert steps["Secrets"] == ("failed", "token_ref names an environment variable that is not set.")
    assert {steps[name] for name in ("Configuration", "Host name", "Address", "Connection", "Canary")} == {
        NOT_REACHED
    }
    assert receiver.log == []


@pytest.mark.parametrize(
    ("url", "failed", "said"),
    (
        ("http://nothing.invalid/", "Host name", "Host name does not resolve"),
        ("http://169.254.169.254/", "Address", "Address is not allowed (link-local)."),
        ("http://10.1.2.3/", "Address", "Address is not allowed (private network)."),
        ("http://127.0.0.1:{closed}/", "Connection", "No connection (ECONNREFUSED)."),
    ),
)
def test_a_test_says_where_it_ends(client: Client, url: str, failed: str, said: str) -> None:
    with closed_port() as port:
        row = connector("siem", URL)
        # As if the name had got another address since: an address itself is refused when it is saved.
        Connector.objects.update(url=url.format(closed=port))
        steps = steps_of(client, row)
    assert steps[failed][0] == "failed"
    assert steps[failed][1].startswith(said)
    assert list(words(steps).values()).count("failed") == 1
    assert steps["Canary"] == NOT_REACHED


@pytest.mark.parametrize(
    ("until", "word", "said"),
    ((60, "ok", "(59 days)"), (29.5, "warning", "(29 days)"), (-1, "failed", "It has expired.")),
)
def test_a_certificate_has_a_name_and_an_end(
    client: Client, authority: Authority, encrypted: Any, until: float, word: str, said: str
) -> None:
    there = encrypted(authority.context("localhost", "127.0.0.1", until=until * DAY, since=-2 * DAY))
    row = connector("siem", there.url("localhost", scheme="https"), ca_pem=authority.pem)
    steps = steps_of(client, row)
    assert steps["Certificate"][0] == word
    assert said in steps["Certificate"][1]
    if word != "failed":
        assert "localhost" in steps["Certificate"][1]
        assert steps["Canary"][0] == "ok"


def test_a_certificate_for_another_name_or_of_nobody_we_trust(
    client: Client, authority: Authority, encrypted: Any
) -> None:
    there = encrypted(authority.context("elsewhere.example.com", until=60 * DAY))
    row = connector("siem", there.url("localhost", scheme="https"), ca_pem=authority.pem)
    assert steps_of(client, row)["Certificate"] == ("failed", "It is for another name.")
    other = connector("other", there.url("localhost", scheme="https"))
    assert steps_of(client, other)["Certificate"][1] == "Its authority is not among those that are trusted."


def test_the_address_of_a_secret_url_is_not_shown(
    client: Client, authority: Authority, encrypted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = encrypted(authority.context("hooks.localhost.example", "127.0.0.1", until=60 * DAY))
    monkeypatch.setenv("HOOK", there.url("127.0.0.1", "/services/s3cr3t-part-of-the-path", "https"))
    row = connector("hook", "", url_ref="env:HOOK", ca_pem=authority.pem)
    page = client.post(reverse("admin:evidence_connector_test", args=[row.pk])).content.decode()
    assert "s3cr3t" not in page
    assert f":{there.port}" not in page


@pytest.mark.parametrize(
    ("given", "said", "to_do"),
    (
        (
            {"wants": "Basic else"},
            f"Credential is not set up ({PROXY_CREDENTIAL}).",
            STEPS["set_credential"],
        ),
        (
            {"answers": b"HTTP/1.1 403 Forbidden\r\n\r\n"},
            "No connection (the proxy answered 403).",
            STEPS["check_network"],
        ),
    ),
)
def test_what_a_proxy_refuses_is_said_as_a_send_would(
    client: Client, given: dict[str, Any], said: str, to_do: str
) -> None:
    """407 is about the proxy's credential; 403 is about where it leads, and about no credential at all."""
    proxy = Proxy(**given)
    row = connector("siem", "https://localhost:9/hook", proxy_url=proxy.url)
    page = client.post(reverse("admin:evidence_connector_test", args=[row.pk]))
    proxy.close()
    (step,) = (step for step in page.context["steps"] if step.name == "Proxy")
    assert (step.word, step.said) == (Word.FAILED, said)
    assert to_do in step.to_do


def test_the_result_says_whether_a_canary_left_a_record(
    client: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = connector("siem", receiver.url("/hook"))

    def said() -> str:
        page = client.post(reverse("admin:evidence_connector_test", args=[row.pk])).content.decode()
        return page[page.index('id="content-main"') : page.index('class="test-steps"')]

    left = "The canary left a record"
    monkeypatch.setattr(canaries, "PAUSE", DAY)
    assert left in said()
    # The next one comes too soon.
    assert left not in said()
    monkeypatch.setattr(canaries, "PAUSE", DAY * 0)
    receiver.behave("/hook", status=403)
    failed = said()
    assert "The canary failed." in failed
    assert left in failed
    assert "not reached" not in failed
    assert Canary.objects.count() == 2


def test_steps_have_something_to_do(client: Client) -> None:
    row = connector("siem", URL)
    Connector.objects.update(url="http://10.1.2.3/")
    page = client.post(reverse("admin:evidence_connector_test", args=[row.pk])).content.decode()
    assert "Check the connector" in page
    assert "allowed networks" in page


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ADMINISTRATOR])
def test_nobody_but_an_administrator_tests_here(role: Role, receiver: Receiver) -> None:
    row = connector("siem", receiver.url("/hook"))
    client = Client()
    client.force_login(person(role))
    assert client.post(reverse("admin:evidence_connector_test", args=[row.pk])).status_code == 302
    assert receiver.log == []


def test_a_test_is_asked_for_by_post_and_of_a_connector_that_is_there(
    client: Client, receiver: Receiver
) -> None:
    row = connector("siem", receiver.url("/hook"))
    answered = client.get(reverse("admin:evidence_connector_test", args=[row.pk]))
    assert answered.headers["location"] == address(ADD, row.pk)
    assert client.put(reverse("admin:evidence_connector_test", args=[row.pk])).status_code == 405
    assert client.post(reverse("admin:evidence_connector_test", args=[row.pk + 1])).status_code == 404
    outside = Client(enforce_csrf_checks=True)
    outside.force_login(person(Role.ADMINISTRATOR))
    assert outside.post(reverse("admin:evidence_connector_test", args=[row.pk])).status_code == 403
    assert receiver.log == []


def test_what_is_tested_is_what_is_saved(client: Client, administrator: Person, receiver: Receiver) -> None:
    row = connector("siem", receiver.url("/hook"))
    page = client.get(address(ADD, row.pk)).content.decode()
    form = page[page.index('class="connector-test"') :]
    form = form[: form.index("</form>")]
    assert 'name="url"' not in form
    row.title = "Another one"
    configuration.save(row, by=administrator, clock=system_clock)
    assert steps_of(client, row)["Canary"][0] == "ok"


# --- the connection itself ------------------------------------------------------------------------------------------


def test_every_scheme_of_every_product_is_known() -> None:
    assert {scheme for adapter in PRODUCTS.values() for scheme in adapter.schemes} == set(probing.SCHEMES)


def test_every_stage_has_a_name() -> None:
    assert set(connector_tests.NAMES) == set(probing.Stage)
