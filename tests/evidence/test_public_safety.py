"""Rules of public safety find every secret of a corpus, nothing in plain text, and take time by length alone (P18)."""

import json
import random
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence.connectors import references
from evidence.domain import configured_secrets, public_safety
from evidence.domain.configured_secrets import Secrets, forms_of, telling
from evidence.domain.safety_rules import RULES, is_private_host, looks_secret
from tests.evidence import documents, safety_corpus

CORPUS = tuple(safety_corpus.secrets(300, seed=18))


def rules_in(text: str) -> set[str]:
    return {hit.rule for hit in public_safety.find(text)}


# --- what is found --------------------------------------------------------------------------------------------------


def test_the_corpus_is_as_large_as_was_promised() -> None:
    assert len({text for _, text in CORPUS}) >= 200
    assert len({rule for rule, _ in CORPUS}) >= 25
    assert {rule for rule, _ in CORPUS} == {rule.name for rule in RULES}


def test_p18_every_secret_of_the_corpus_is_found() -> None:
    missed = [(rule, text) for rule, text in CORPUS if rule not in rules_in(text)]
    assert missed == []


WRAPPED: dict[str, Callable[[str], str]] = {
    "alone": lambda text: text,
    "in a sentence": lambda text: f"It was sent with {text}, as agreed.",
    "in brackets": lambda text: f"(see {text})",
    "in lines": lambda text: f"before\n{text}\nafter",
    "in JSON": lambda text: json.dumps({"note": f"a\n{text}"}),
    "in JSON in JSON": lambda text: json.dumps({"body": json.dumps({"note": text})}),
    "in Markdown": lambda text: f"| **{text}** | `{text}` |",
    "in italics": lambda text: f"_{text}_",
    "in a query": lambda text: f"https://example.com/?q={text}&page=2",
    "in a link": lambda text: f"[here](https://example.com/#{text})",
    "behind an equals sign": lambda text: f"VALUE={text}",
    "between NULs": lambda text: f"one\0{text}\0two",
}


@pytest.mark.parametrize("way", tuple(WRAPPED))
def test_p18_it_is_found_wherever_it_stands(way: str) -> None:
    missed = [(rule, WRAPPED[way](text)) for rule, text in CORPUS if not rules_in(WRAPPED[way](text))]
    assert missed == []


@settings(max_examples=200, deadline=None)
@given(
    secret=st.sampled_from(CORPUS),
    before=st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=60),
    after=st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=60),
    way=st.sampled_from(sorted(WRAPPED)),
)
def test_p18_no_secret_is_missed_between_any_words(
    secret: tuple[str, str], before: str, after: str, way: str
) -> None:
    _, text = secret
    assert rules_in(f"{before} {WRAPPED[way](text)} {after}")


def test_what_is_found_is_taken_out_whole() -> None:
    for _, text in CORPUS:
        cleaned = public_safety.redacted(text, public_safety.find(text))
        assert public_safety.REDACTED in cleaned
        assert public_safety.find(cleaned) == [], text
    assert public_safety.redacted("plain", public_safety.find("plain")) == "plain"


def made(rule: str, way: int = 0) -> str:
    return safety_corpus.SECRETS[rule][way](random.Random(18))


LONG = safety_corpus.some(safety_corpus.ALNUM, 900)(random.Random(18))
WHOLE: dict[str, str] = {
    **{f"private-key {way}": made("private-key", way) for way in range(6)},
    "private-key, in JSON": json.dumps(made("private-key"))[1:-1],
    "private-key, in a query": quote(made("private-key")),
    "private-key, cut off": made("private-key")[:-60],
    "putty-private-key": f"{made('putty-private-key')}\nPrivate-Lines: 1\n{LONG}\nPrivate-MAC: {'0a' * 32}",
    "teams-webhook": made("teams-webhook").removeprefix("https://acme."),
    "mailchimp-key": made("mailchimp-key"),
    "terraform-token": made("terraform-token"),
    "entra-client-secret": made("entra-client-secret"),
    "named-secret": f"token={LONG}",
    "authorization-value": f"Bearer {LONG * 6}",
    "authorization-token": f"Authorization: Token token={LONG * 2}",
    "password-in-url": f"://AWS:{LONG}@",
    "curl-user": f"curl -u svc:{LONG}",
    "session-cookie": f"sessionid={LONG}",
}


@pytest.mark.parametrize("what", WHOLE)
def test_p18_nothing_of_a_secret_is_left(what: str) -> None:
    """What is replaced is the secret, not its first line; what is let through is this one, not all that begin so."""
    text = f"See {WHOLE[what]}\nor ask."
    assert public_safety.redacted(text, public_safety.find(text)) == "See [redacted]\nor ask."


def test_the_first_line_of_a_key_takes_nothing_with_it() -> None:
    text = f"It begins with {made('private-key').splitlines()[0]} in the manual, and with no other word."
    said = public_safety.redacted(text, public_safety.find(text))
    assert said == "It begins with [redacted] in the manual, and with no other word."


# --- what is not ----------------------------------------------------------------------------------------------------


def test_p18_nothing_is_found_in_plain_text() -> None:
    found, size = [], 0
    for text in safety_corpus.plain(520_000, seed=7):
        size += len(text.encode())
        found += [(hit.rule, text[hit.start : hit.end], text[:300]) for hit in public_safety.find(text)]
    assert size >= 500_000
    assert found == []


def test_p18_nothing_is_found_in_records_of_every_kind() -> None:
    for draft in documents.drafts(4 * len(documents.KIND_TABLE)):
        assert public_safety.find(draft.body.decode()) == [], draft.kind.name


@pytest.mark.parametrize(
    "value",
    (
        "required", "missing", "env:NAME", "file:splunk", "${TOKEN}", "<token>", "********", "hunt***2x", "[redacted]",
        "2026-12-31", "/run/secrets/x1y2z3", "gordackretryentry-0123456789abcdef", "ann@example.com", "sha256:abc123",
        "rotate-quarterly", "CHG-1234", "CHG1234567", "InvalidAuthenticationTokenException", "step12", "base64url",
        "v1.22.333", "123456789", "short1",
    ),
)  # fmt: skip
def test_words_are_no_secrets(value: str) -> None:
    assert not looks_secret(value)


# --- private addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    (
        "localhost", "splunk", "a.internal", "b.local", "c.corp", "d.lan", "e.home.arpa", "f.intranet", "x.localdomain",
        "db.svc.cluster.local", "10.0.0.1", "172.31.255.255", "192.168.0.1", "127.0.0.1", "127.1", "0x7f.1", "0177.1",
        "2130706433", "0x7f000001", "169.254.169.254", "0.0.0.0", "100.64.0.1", "[::1]", "[fe80::1%25eth0]",
        "[fd00::1]", "[::ffff:192.168.0.1]", "LOCALHOST", "a.INTERNAL.",
    ),
)  # fmt: skip
def test_private_hosts(host: str) -> None:
    assert is_private_host(host)
    assert "private-url" in rules_in(f"see https://{host}:8443/path for it")
    assert "private-url" in rules_in(f"see https://ann@{host}/")


@pytest.mark.parametrize(
    "host",
    (
        "example.com", "8.8.8.8", "134744072", "[2606:4700:4700::1111]", "internal.example.com", "local.example.org",
        "corporate.example", "xn--bcher-kva.example", "1.example.com", "999.1.1.1", "08.1.1.1",
    ),
)  # fmt: skip
def test_public_hosts(host: str) -> None:
    assert not is_private_host(host)
    assert rules_in(f"see https://{host}/path for it") == set()


def test_names_of_ours_and_buckets_are_no_addresses() -> None:
    assert rules_in("connector://splunk s3://bucket/key urn:x gs://b docker://image://x") == set()


# --- time -----------------------------------------------------------------------------------------------------------


def seconds(text: str) -> float:
    """Time of this thread, the best of several runs: what else the machine does only ever adds."""
    best = float("inf")
    for _ in range(5):
        start = time.thread_time()
        public_safety.find(text)
        best = min(best, time.thread_time() - start)
    return best


def hard(unit: str) -> str:
    """16 KB of one thing again and again."""
    return (unit * (16_384 // len(unit) + 1))[:16_384]


# What makes a careless pattern look at the same characters again and again.
HARD = (
    *sorted({anchor for rule in RULES for anchor in rule.anchors}),
    *(
        "a",
        "A1",
        " ",
        "=",
        ":",
        "://",
        "://:",
        "://a:",
        "https://a:b",
        "a@",
        "@a.",
        "a.b-c_d",
        "0x7f.",
        "\u0130",
    ),
    *(
        "eyJ",
        "eyJa.",
        "eyJaaaaaaaa.",
        "xoxb-",
        "AKIA",
        "A.",
        "sk-a",
        "SKa",
        "~Q~",
        "PRIVATE+KEY+a",
        "\\u003d",
    ),
    *("-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----a-\n", "PuTTY-User-Key-File-3:P"),
    *("-----BEGIN ", "-----BEGIN A A A ", "Authorization: Token ", "Bearer ", "basic Zm9v", "dd_api_key"),
    *("password=", 'password="', "password is ", "token=%3d", "secret: key: ", "curl -u a:", "curl "),
    *("logic.azure.com/?a&sig", "hooks.slack.com/services/", "pagerduty api key"),
)


@pytest.mark.parametrize("unit", HARD)
def test_p18_hard_text_takes_four_times_as_long_when_it_is_four_times_as_long(unit: str) -> None:
    text = hard(unit)
    # Double the factor, and what a clock cannot tell apart on a busy machine.
    assert seconds(text) <= 8 * seconds(text[: len(text) // 4]) + 0.005


def test_p18_two_kilobytes_take_less_than_a_coarse_bound() -> None:
    """``make bench`` has the figure; a machine that does other things at once must not fail here."""
    text = "\n".join(safety_corpus.plain(2_048, seed=3))[:2_048]
    assert seconds(text) < 0.005


# --- configured secrets, by value -----------------------------------------------------------------------------------

VALUE = "correct horse/battery+staple"


def test_a_configured_secret_is_found_in_every_form() -> None:
    import base64

    secrets = Secrets(forms_of([VALUE]))
    forms = [
        VALUE,
        quote(VALUE, safe=""),
        quote(VALUE, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
        json.dumps({"x": VALUE}),
        VALUE.encode().hex(),
        *(base64.b64encode(b"user:"[:n] + VALUE.encode() + b"!"[: n % 2]).decode() for n in range(6)),
        *(base64.urlsafe_b64encode(b"user:"[:n] + VALUE.encode()).decode() for n in range(6)),
    ]
    for form in forms:
        assert secrets.find(f"said {form} twice"), form
        assert {hit.rule for hit in secrets.find(form)} == {configured_secrets.RULE}
    assert secrets.find("correct horse, battery, staple") == []
    assert VALUE not in repr(secrets)
    assert str(len(secrets.forms)) in repr(secrets)


def test_p18_who_looked_before_takes_nothing_away_from_who_looks_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that was held up writes down what it made of older values, in between what we write."""

    class Beside(configured_secrets._Known):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "secrets":
                super().__setattr__("secrets", Secrets())
                super().__setattr__("values", frozenset())

    monkeypatch.setattr(configured_secrets, "_known", Beside())
    monkeypatch.setenv("A_PASSWORD", VALUE)
    references.learn(["env:A_PASSWORD"])
    assert configured_secrets.known().find(VALUE)
    assert configured_secrets.known().find(VALUE)


def test_what_of_a_secret_tells_something_alone() -> None:
    url = "https://hooks.example.com:8443/services/collector/T0/AbCdEfGhIjKlMnOpQrSt?x=1"
    assert telling(url) == {url, "AbCdEfGhIjKlMnOpQrSt"}
    assert telling("https://u:l0ngenough@x.example/") == {"https://u:l0ngenough@x.example/", "l0ngenough"}
    assert telling("Bearer abcdefgh") == {"Bearer abcdefgh", "abcdefgh"}
    assert telling("three words together") == {"three words together"}


def test_a_short_secret_is_a_word_of_its_own() -> None:
    secrets = Secrets(forms_of(["tul1p"]))
    for text in ("tul1p", "a tul1p!", "x=tul1p&y"):
        assert secrets.find(text), text
    for text in ("tul1ps", "atul1p", "a tul1"):
        assert secrets.find(text) == [], text


def test_a_secret_that_is_a_word_is_not_given_away_by_refusals() -> None:
    assert forms_of(["postgres", "https://x:secret@[::1/", ""]) == forms_of(["https://x:secret@[::1/"])
    assert Secrets(forms_of(["postgres"])).find("postgres was down") == []
