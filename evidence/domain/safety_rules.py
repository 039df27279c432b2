"""The rules of public safety, as data: what a credential or a private address looks like in text (P18).

Every pattern costs time that grows with the text alone: quantifiers are bounded, none stands inside another one that
could take the same characters, and a long pattern starts only where a run of its characters starts. A rule is looked
for only in text that holds one of its ``anchors``.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Goes into records: another number whenever a rule finds more or less than before.
RULESET = "cavra-public-safety-2"


@dataclass(frozen=True)
class Found:
    """What a pattern found: a match over text that may be in lower case, and the text as it was."""

    match: re.Match[str]
    text: str

    def said(self, group: int = 0) -> str:
        """A group as it was written."""
        start, end = self.match.span(group)
        return self.text[start:end]

    def before(self, length: int) -> str:
        """As many characters before it, in lower case."""
        start = self.match.start()
        return self.text[max(0, start - length) : start].lower()


Accepts = Callable[[Found], bool]


def _always(found: Found) -> bool:
    return True


@dataclass(frozen=True)
class Rule:
    """What one kind of secret looks like. ``name`` is part of refusals and records.

    ``anchors`` are in lower case; one of them stands in every text that the rule finds something in. A pattern with
    ``fold`` is in lower case too and looks at text in lower case. ``accepts`` says whether what was found is meant.

    What a rule finds is the whole secret, for it is replaced, or let through, as far as it was found: ``before`` is
    how many characters of it a look back has seen, ``rest`` what goes on where the pattern's bounds end.
    """

    name: str
    anchors: tuple[str, ...]
    pattern: re.Pattern[str]
    fold: bool = False
    accepts: Accepts = _always
    before: int = 0
    rest: re.Pattern[str] | None = None


def _rule(
    name: str,
    pattern: str,
    *anchors: str,
    fold: bool = False,
    accepts: Accepts = _always,
    before: int = 0,
    rest: str = "",
) -> Rule:
    return Rule(
        name,
        anchors,
        re.compile(pattern, re.ASCII),
        fold,
        accepts,
        before,
        re.compile(rest, re.ASCII) if rest else None,
    )


def _starts(head: str) -> str:
    r"""``head`` (of one width) where no letter or digit stands before it.

    One that belongs to an escape of JSON (``\n``, ``\u003d``) or of a URL (``%20``) is none. The look back stands
    behind ``head``, so that a search goes from one ``head`` to the next at the speed of memory.
    """
    return (
        rf"{head}(?:(?<![A-Za-z0-9]{head})|(?<=\\[nrtbf]{head})|(?<=\\u[0-9A-Fa-f]{{4}}{head})"
        rf"|(?<=%[0-9A-Fa-f]{{2}}{head}))"
    )


def _token(name: str, head: str, body: str, *anchors: str, accepts: Accepts = _always) -> Rule:
    return _rule(name, _starts(head) + body, *anchors, accepts=accepts)


def _each(
    name: str, heads: Sequence[str], tail: str, accepts: Accepts = _always, *, rest: str = ""
) -> list[Rule]:
    """A rule for each head, a literal in lower case and group 1, in front of ``tail``.

    One alone is searched at the speed of memory, unlike a choice of several.
    """
    return [
        _rule(name, f"({re.escape(head)}){tail}", head, fold=True, accepts=accepts, rest=rest)
        for head in heads
    ]


# --- values behind a name: "password = …" -------------------------------------------------------------------------

# What stands in the place of a value: a reference, a variable, something that was masked, a word of a language.
_PLACEHOLDER = re.compile(
    r"(?:env:|file:|vault:|\$|%(?:[(s]|5b|3c|7b|24)|<|\{|\[|\*|x{3}|-{3}|_{3}|\.{3}|sha(?:1|256|512)[:=-]|md5[:=]"
    r"|(?:none|null|nil|true|false|undefined|redacted|masked|hidden)\b)",
    re.IGNORECASE | re.ASCII,
)
_MASKED = re.compile(r"\*{3}|\[redacted|<redacted|\.{3}|\u2026|\u2022{3}", re.IGNORECASE)
_DATE = re.compile(r"[12][0-9]{3}-[0-9]{2}-[0-9]{2}")
_PATH = re.compile(r"(?:[~.]{0,2}/|[A-Za-z]:\\)[a-z]")
# Ids of records, cases and people of this product.
_OWN_ID = re.compile(r"[a-z]{3,60}-[0-9a-f]{16}(?:\.[a-z0-9_]{1,40})?")
_EMAIL = re.compile(r"[A-Za-z0-9_.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,5}")
# In the middle of a value these are no punctuation.
_ODD = re.compile(r"[!@$%^]")
_PARTS = re.compile(r"[^A-Za-z0-9]+")
# Words with a digit in them: a word with a small number, a short unit with a number, a ticket.
_NUMBERED = re.compile(r"[A-Z]?[a-z]+[0-9]{1,2}|[a-z]{1,3}[0-9]{1,6}|[A-Z]{2,6}[0-9]{1,10}")
# And those that are names of something technical.
_TECHNICAL = frozenset(
    (
        "aes128", "aes256", "argon2id", "base64url", "ed25519", "pbkdf2", "rsa2048", "rsa4096", "sha256", "sha384",
        "sha512", "sha1sum", "sha256sum",
    )
)  # fmt: skip


def looks_secret(value: str, *, password: bool = False) -> bool:
    """Whether a value behind a name like *token* is a secret, rather than a word, a date, a path or a placeholder.

    A word has letters only, or a small number; what mixes letters and digits otherwise, or changes case again and
    again, is no word. For a ``password`` a word with a number is one.
    """
    value = value.rstrip(".,;:!?)").lstrip("(")
    if len(value) < 6 or _MASKED.search(value):
        return False
    if any(form.match(value) for form in (_PLACEHOLDER, _DATE, _PATH)):
        return False
    if any(form.fullmatch(value) for form in (_OWN_ID, _EMAIL)):
        return False
    if _ODD.search(value, 1, len(value) - 1) and " " not in value:
        return True
    return any(_is_random(part, password=password) for part in _PARTS.split(value))


def _is_random(part: str, *, password: bool) -> bool:
    if len(part) < 4 or part.isdigit() or part.lower() in _TECHNICAL:
        return False
    if part.isalpha():
        if len(part) < 16 or part.islower():
            return False
        # Random letters change case again and again, CamelCase does so once a word.
        upper = sum(character.isupper() for character in part) / len(part)
        return 0.3 < upper < 0.7
    return password or not _NUMBERED.fullmatch(part)


def _value_looks_secret(found: Found) -> bool:
    return looks_secret(_value(found))


def _value(found: Found) -> str:
    """The one group that took part."""
    return found.said(found.match.lastindex or 0)


# Before "key": a key of something that is locked. "key: value" of a table is none.
_KEY_OF = re.compile(
    r"(?:api|access|secret|private|account|shared|app|application|auth|encryption|signing|master|routing"
    r"|integration|service|license|session|hmac)[ _-]?$"
)


def _named_secret(found: Found) -> bool:
    name = found.match[1]
    if name == "key" and not _KEY_OF.search(found.before(16)):
        return False
    return looks_secret(_value(found), password=name.startswith("p"))


_PASSWORDS_OF_EXAMPLES = frozenset({"password", "passwd", "pass", "pwd", "pw", "secret", "xxx", "token"})


def _password_in_url(found: Found) -> bool:
    password = found.said(1)
    return not (
        _PLACEHOLDER.match(password) or _MASKED.search(password) or password.lower() in _PASSWORDS_OF_EXAMPLES
    )


def _credentials(found: Found) -> bool:
    """Whether what stands behind a scheme of HTTP authentication are credentials (RFC 7617, RFC 6750)."""
    if not _OUTSIDE.search(found.before(6)):
        return False
    value = found.said(2)
    if found.match[1] == "basic":
        try:
            if b":" in base64.b64decode(value, validate=True):
                return True
        except (binascii.Error, ValueError):
            pass
    return looks_secret(value)


# What ``_starts`` looks for, in text in lower case, where a pattern has several heads.
_OUTSIDE = re.compile(r"(?:^|[^a-z0-9]|\\[nrtbf]|\\u[0-9a-f]{4}|%[0-9a-f]{2})$")


# --- private addresses ----------------------------------------------------------------------------------------------

# RFC 6761 and 6762 (localhost, local), RFC 8375 (home.arpa), ICANN's resolution of 2024-07-29 (internal), and names
# that companies and clusters use among themselves (RFC 6762, appendix G).
_PRIVATE_NAMES = (
    "localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "lan", "home", "home.arpa",
    "svc", "cluster",
)  # fmt: skip
_NUMBER = re.compile(r"0x[0-9a-f]{1,8}|[0-9]{1,11}")


def is_private_host(host: str) -> bool:
    """Whether a host of a URL can only be meant inside somebody's network.

    Names of one label, names under a private top, and addresses that are not global in any form in which the
    resolver takes them (inet_aton: 127.1, 0x7f000001, 017700000001).
    """
    host = host.rstrip(".").lower()
    if not host:
        return False
    if host.startswith("["):
        return _not_global(host[1:].partition("]")[0].partition("%")[0])
    labels = host.split(".")
    if 1 <= len(labels) <= 4 and all(_NUMBER.fullmatch(label) for label in labels):
        return _not_global(_dotted(labels))
    if ":" in host:
        return False
    return len(labels) == 1 or any(host.endswith(f".{name}") for name in _PRIVATE_NAMES)


def _dotted(labels: list[str]) -> str:
    """An address as ``inet_aton`` reads it: the last number fills what the others leave; empty when it cannot."""
    try:
        *heads, last = [
            int(label, 16) if label.startswith("0x") else int(label, 8) if label[0] == "0" else int(label)
            for label in labels
        ]
    except ValueError:
        return ""
    number = last + sum(head << (24 - 8 * place) for place, head in enumerate(heads))
    return str(ipaddress.IPv4Address(number)) if number < 2**32 else ""


def _not_global(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    inner = getattr(address, "ipv4_mapped", None)
    return not (inner or address).is_global


# Schemes of addresses that something connects to; a name of ours (``connector://``) or a bucket is none.
_SCHEME = re.compile(
    r"(?:^|[^a-z0-9]|\\[nrtbf]|%[0-9a-f]{2})(?:https?|wss?|ftps?|sftp|ssh|ldaps?|tcp|udp|smb|nfs|amqps?|mqtts?|kafka|git|imaps?|smtps?"
    r"|syslog|telnet|rdp|vnc|postgres(?:ql)?|mysql|mariadb|mongodb(?:\+srv)?|rediss?|mssql|sqlserver|oracle"
    r"|clickhouse|elasticsearch)$"
)


def _private_authority(found: Found) -> bool:
    if not _SCHEME.search(found.before(16)):
        return False
    host = found.match[1].rpartition("@")[2]
    return is_private_host(host if host.startswith("[") else host.partition(":")[0])


# --- the table ------------------------------------------------------------------------------------------------------

# What a name of a secret ends with, and what stands between it and its value in code, JSON, YAML, headers and prose.
_NAMED = (
    "password", "passwort", "passwd", "passphrase", "pwd", "secret", "token", "credential", "credentials", "key",
)  # fmt: skip
_IS = r"\\{0,3}[\"'\]]{0,2}[ \t]{0,4}(?:=>|:=|[=:]|%3d|\b(?:is|was)\b)[ \t]{0,4}"
_VALUE = r"(?:\\{0,3}\"([^\"\\\n\x00]{6,300})|\\{0,3}'([^'\\\n\x00]{6,300})|([^\s\"'`,;&<>(){}\[\]|\\\x00]{6,300}))"
# A value that is longer than the patterns look.
_VALUE_GOES_ON = r"[^\s\"'`,;&<>(){}\[\]|\\\x00]*+"
_B64URL = "[A-Za-z0-9_-]"

# A key behind its first line: to the last line, or, of one that was cut off, the lines of base64 there are.
_KEY_BLOCK = (
    r"(?:[^-\x00]{0,20000}+(?:-(?!----)[^-\x00]{0,20000}+){0,50}+-----END[^-\x00]{1,80}-----"
    r"|(?:(?:\s|\\{1,4}[nr]|%0[AaDd]){0,4}+[A-Za-z0-9+/=]{16,200}+){0,600}+)"
)
_PUTTY_KEY = (
    r"(?:(?:[^P\x00]|P(?!uTTY-User-|rivate-MAC:)){0,20000}+"
    r"Private-MAC:(?:\s|\\{1,4}[nrt]|%20|\+){0,4}[0-9a-f]{40,64})?"
)

# Each with the page of the vendor or the RFC that says what it looks like.
RULES: tuple[Rule, ...] = (
    # RFC 7468, section 10 and 11; RFC 4716 and OpenSSH's PROTOCOL.key; RFC 9580, section 6.2.
    _rule(
        "private-key",
        r"-----BEGIN(?: |%20|\+)(?:[A-Z0-9]{1,12}(?: |%20|\+)){0,3}PRIVATE(?: |%20|\+)KEY(?:(?: |%20|\+)BLOCK)?-----",
        "-----begin",
        rest=_KEY_BLOCK,
    ),
    _rule("putty-private-key", r"PuTTY-User-Key-File-[23]:", "putty-user-key-file", rest=_PUTTY_KEY),
    # age(1): identities are Bech32 of 32 bytes.
    _token("age-secret-key", "AGE-SECRET-KEY-1", r"[0-9A-Z]{58}", "age-secret-key-1"),
    # C2SP signed-note: the form in which Go keeps a note's signing key.
    _rule(
        "note-signing-key",
        r"PRIVATE\+KEY\+[^\s+]{1,200}\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{40,200}",
        "private+key+",
    ),
    # RFC 7519 with RFC 7515: header and payload begin with {" in base64url.
    _token(
        "json-web-token",
        "eyJ",
        rf"{_B64URL}{{8,2000}}+\.eyJ{_B64URL}{{8,8000}}+\.{_B64URL}{{10,2000}}",
        "eyj",
    ),
    # RFC 7516: encrypted ones have five parts.
    _token(
        "json-web-encryption",
        "eyJ",
        rf"{_B64URL}{{8,2000}}+\.{_B64URL}{{0,2000}}+\.{_B64URL}{{8,100}}+\.{_B64URL}{{8,8000}}+"
        rf"\.{_B64URL}{{10,100}}",
        "eyj",
    ),
    # RFC 6750, RFC 7617; Splunk "Format events for HTTP Event Collector"; Okta "API tokens" (SSWS).
    *_each(
        "authorization-value",
        ("bearer", "basic", "splunk", "ssws", "apikey", "genericnotificationkey"),
        r"(?:[ \t]|%20|\+){1,4}([a-z0-9._~+/=:-]{8,4000})",
        _credentials,
        rest=r"[a-z0-9._~+/=:-]*+",
    ),
    # PagerDuty "REST API v2 overview", GitHub and Rails: "Authorization: Token token=…".
    _rule(
        "authorization-token",
        r"authorization\\{0,3}[\"']?[ \t]{0,3}[:=][ \t]{0,3}\\{0,3}[\"']?(?:token|bot|digest)[ \t]{1,3}(?:token=)?"
        r"([A-Za-z0-9._~+/=:-]{8,1000})",
        "authorization",
        fold=True,
        accepts=_value_looks_secret,
        rest=r"[a-z0-9._~+/=:-]*+",
    ),
    # --- clouds ---
    # AWS IAM User Guide, "IAM identifiers": unique id prefixes of access keys.
    _token(
        "aws-access-key-id",
        "A(?:KI|SI|BI|CC)A",
        r"[A-Z2-7]{16}(?![A-Za-z0-9])",
        "akia",
        "asia",
        "abia",
        "acca",
    ),
    # AWS IAM User Guide, "Manage access keys": 40 characters of base64.
    _rule(
        "aws-secret-access-key",
        r"secret[_ -]?(?:access[_ -]?)?key\\{0,3}[\"']{0,2}[ \t]{0,4}(?:=>|[=:]|%3d)[ \t]{0,4}\\{0,3}[\"']?"
        r"[a-z0-9/+]{40}(?![a-z0-9/+])",
        "secret",
        fold=True,
    ),
    # Amazon Bedrock User Guide, "API keys".
    _token("aws-bedrock-key", "ABSK", r"[A-Za-z0-9+/]{109,269}", "absk"),
    # Google Cloud, "Authenticate using API keys".
    _token("google-api-key", "AIza", rf"{_B64URL}{{35}}(?![A-Za-z0-9])", "aiza"),
    # Google Identity, "Using OAuth 2.0 to access Google APIs".
    _token("google-oauth-token", r"ya29\.", rf"{_B64URL}{{20,2000}}", "ya29."),
    _token("google-oauth-secret", "GOCSPX-", rf"{_B64URL}{{28}}", "gocspx-"),
    # Google Cloud IAM, "Create and delete service account keys": the JSON key file.
    _rule(
        "google-service-account-key",
        r"private_key_id\\{0,3}[\"']?\s{0,3}:\s{0,3}\\{0,3}[\"']?[0-9a-f]{40}(?![0-9a-f])",
        "private_key_id",
    ),
    # Microsoft Learn, "Configure Azure Storage connection strings": 64 bytes of base64.
    _rule("azure-storage-key", r"AccountKey=[A-Za-z0-9+/]{86}==", "accountkey="),
    # Microsoft Learn, "Authenticate access to Event Hubs using shared access signatures".
    _rule("azure-shared-access-key", r"SharedAccessKey=[A-Za-z0-9+/]{43}=", "sharedaccesskey="),
    # Microsoft Learn, "Create a service SAS"; Power Automate's and Logic Apps' request URLs carry the same.
    _rule(
        "azure-shared-access-signature",
        r"sig(?:(?<=[?&;]sig)|(?<=\\u0026sig)|(?<=%26sig))(?:=|%3d)[a-z0-9%_+/-]{20,200}",
        "sig=",
        "sig%3d",
        fold=True,
    ),
    # Microsoft Learn, "Microsoft Entra application credentials": client secrets.
    _rule("entra-client-secret", r"Q~(?<=[A-Za-z0-9_~.-]{3}[0-9]Q~)[A-Za-z0-9_~.-]{31,34}", "q~", before=4),
    # DigitalOcean, "Personal access tokens".
    _token("digitalocean-token", "do[opr]_v1_", r"[0-9a-f]{64}", "doo_v1_", "dop_v1_", "dor_v1_"),
    # Heroku Dev Center, "Heroku API tokens".
    _token("heroku-key", "HRKU-", rf"{_B64URL}{{30,100}}", "hrku-"),
    # --- places where code and packages are kept ---
    # GitHub Docs, "About authentication to GitHub": token formats.
    _token("github-token", "gh[pousr]_", r"[A-Za-z0-9]{36,255}", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    _token("github-fine-grained-token", "github_pat_", r"[A-Za-z0-9_]{60,255}", "github_pat_"),
    # GitLab Docs, "Token overview": prefixes.
    _rule(
        "gitlab-token",
        _starts("gl") + r"(?:pat|oas|dt|rtr|rt|cbt|ptt|ft|imt|agent|soat|ffct|wt)-[A-Za-z0-9_.-]{20,300}",
        "glpat-",
        "gloas-",
        "gldt-",
        "glrt",
        "glcbt-",
        "glptt-",
        "glft-",
        "glimt-",
        "glagent-",
        "glsoat-",
        "glffct-",
        "glwt-",
    ),
    # npm Docs, "About access tokens".
    _token("npm-token", "npm_", r"[A-Za-z0-9]{36}", "npm_"),
    # PyPI help, "How can I use API tokens": a macaroon in base64 that begins with the site's name.
    _token("pypi-token", "pypi-AgE", rf"{_B64URL}{{50,1000}}", "pypi-age"),
    # RubyGems Guides, "API key scopes".
    _token("rubygems-key", "rubygems_", r"[0-9a-f]{48}", "rubygems_"),
    # Docker Docs, "Personal access tokens".
    _token("docker-token", "dckr_[po]at_", rf"{_B64URL}{{27,60}}", "dckr_pat_", "dckr_oat_"),
    # Microsoft Learn, NuGet "Scoped API keys".
    _token("nuget-key", "oy2", r"[a-z0-9]{43}(?![A-Za-z0-9])", "oy2"),
    # --- tickets, chat, alarms ---
    # Slack API, "Token types".
    _rule(
        "slack-token",
        _starts("xox") + r"(?:[abeoprscd]|e\.xox[bp])-[A-Za-z0-9%-]{10,400}",
        "xox",
    ),
    _token("slack-app-token", "xapp-", r"[0-9]-[A-Za-z0-9-]{10,300}", "xapp-"),
    # Slack API, "Sending messages using incoming webhooks".
    _rule(
        "slack-webhook",
        r"hooks\.slack(?:-gov)?\.com(?:/|\\/|%2f)(?:services|workflows|triggers)(?:/|\\/|%2f)"
        r"[a-z0-9_/\\%+-]{20,200}",
        "hooks.slack",
        fold=True,
    ),
    # Microsoft Learn, "Create incoming webhooks" (connectors), and "Request" triggers of Logic Apps and Power Automate.
    _rule(
        "teams-webhook",
        r"webhook\.office\.com(?:/|\\/|%2f)webhookb2(?:/|\\/|%2f)[a-z0-9@%/\\-]{20,400}",
        "webhook.office.com",
        fold=True,
    ),
    *_each(
        "power-automate-url",
        ("logic.azure.com", "logic.azure.us", "logic.azure.cn", "powerplatform.com", "powerautomate.com"),
        r"[^\s\"'<>]{1,700}?[?&;]sig=[a-z0-9%_-]{20,100}",
    ),
    # Discord Developer Docs, "Webhook resource", and "Reference: authentication".
    _rule(
        "discord-webhook",
        r"discord(?:app)?\.com(?:/|\\/|%2f)api(?:/|\\/|%2f)(?:v[0-9]{1,2}(?:/|\\/|%2f))?webhooks(?:/|\\/|%2f)"
        r"[0-9]{17,20}(?:/|\\/|%2f)[a-z0-9_-]{60,80}",
        "discord",
        fold=True,
    ),
    # Telegram Bot API, "Authorizing your bot".
    _rule("telegram-bot-token", rf":AA(?<=[0-9]{{8}}:AA){_B64URL}{{33}}(?![A-Za-z0-9])", ":aa"),
    # Atlassian Support, "Manage API tokens for your Atlassian account".
    _token("atlassian-token", "AT[AC]TT3x", r"[A-Za-z0-9_=-]{60,300}", "atatt3x", "atctt3x"),
    _token("bitbucket-token", "ATBB", r"[A-Za-z0-9]{28,40}(?![A-Za-z0-9])", "atbb"),
    # PagerDuty, "API access keys" and "Events API v2": 20 characters, with the newer ones "u+" before 18.
    *_each(
        "pagerduty-key",
        ("pagerduty", "pd_", "pd-"),
        r"[a-z0-9_ .-]{0,30}(?:token|key)\\{0,3}[\"']?[ \t]{0,3}[:=][ \t]{0,3}\\{0,3}[\"']?"
        r"(u\+[a-z0-9_-]{18}|[a-z0-9_-]{20}|[0-9a-f]{32})(?![a-z0-9])",
        _value_looks_secret,
    ),
    # Standard Webhooks, "Signature scheme": secrets.
    _token("standard-webhooks-secret", "whs(?:ec|sk)_", r"[A-Za-z0-9+/=_-]{24,200}", "whsec_", "whssk_"),
    # Datadog Docs, "API and application keys": 32 and 40 hex digits.
    *_each(
        "datadog-key",
        ("datadog", "dd_", "dd-"),
        r"[a-z0-9_ .-]{0,20}?(?:api|app|application)[_ -]?key\\{0,3}[\"']?[ \t]{0,3}[:=][ \t]{0,3}"
        r"\\{0,3}[\"']?[0-9a-f]{32}(?:[0-9a-f]{8})?(?![0-9a-f])",
    ),
    # New Relic Docs, "API keys".
    _token("new-relic-key", "NRAK-", r"[A-Z0-9]{27}", "nrak-"),
    # Grafana Docs, "Service accounts", and Grafana Cloud, "Access policies".
    _rule(
        "grafana-token",
        _starts("gl") + r"(?:sa_[A-Za-z0-9]{32}_[0-9a-f]{8}|c_[A-Za-z0-9+/=]{32,400})",
        "glsa_",
        "glc_",
    ),
    # Sentry Docs, "Auth tokens".
    _token("sentry-token", "sntry[su]_", r"[A-Za-z0-9+/=_-]{40,400}", "sntrys_", "sntryu_"),
    # --- payment, mail, telephone ---
    # Stripe Docs, "API keys".
    _token("stripe-key", "sk_(?:live|test)_", r"[A-Za-z0-9]{16,250}", "sk_live_", "sk_test_"),
    _token("stripe-key", "rk_(?:live|test)_", r"[A-Za-z0-9]{16,250}", "rk_live_", "rk_test_"),
    # Square Developer, "Access tokens".
    _token("square-token", "sq0[ac][a-z][pb]-", rf"{_B64URL}{{22,64}}", "sq0"),
    _token("square-access-token", "EAAA", rf"{_B64URL}{{56,80}}(?![A-Za-z0-9])", "eaaa"),
    # Twilio Docs, "API keys": a SID of SK and 32 hex digits names a secret.
    _token("twilio-key", "SK", r"[0-9a-f]{32}(?![0-9A-Za-z])", "sk"),
    # Twilio SendGrid, "API keys".
    _token("sendgrid-key", r"SG\.", rf"{_B64URL}{{16,32}}\.{_B64URL}{{16,64}}", "sg."),
    # Mailgun Docs, "API keys"; Mailchimp Marketing API, "Quick start": 32 hex digits and the data centre.
    _token("mailgun-key", "key-", r"[0-9a-f]{32}(?![0-9A-Za-z])", "key-"),
    _rule("mailchimp-key", r"-us(?<=[0-9a-f]{32}-us)[0-9]{1,2}(?![0-9A-Za-z])", "-us", before=32),
    # --- secrets of infrastructure and of models ---
    # HashiCorp Vault Docs, "Tokens": prefixes; Terraform Docs, "API tokens".
    _token("vault-token", r"hv[sbr]\.", rf"{_B64URL}{{24,300}}", "hvs.", "hvb.", "hvr."),
    _rule(
        "terraform-token",
        rf"\.atlasv1\.(?<=[A-Za-z0-9]{{14}}\.atlasv1\.){_B64URL}{{60,70}}",
        ".atlasv1.",
        before=14,
    ),
    # Databricks Docs, "Personal access tokens".
    _token("databricks-token", "dapi", r"[0-9a-f]{32}(?:-[0-9]{1,2})?(?![0-9A-Za-z])", "dapi"),
    # OpenAI and Anthropic, "API keys"; Hugging Face Hub, "User access tokens".
    _token(
        "openai-key",
        "sk-",
        rf"(?<!-sk-)(?:proj-|svcacct-|admin-|ant-[a-z0-9]{{3,8}}-)?{_B64URL}{{40,200}}",
        "sk-",
        accepts=lambda found: looks_secret(found.said()[3:]),
    ),
    _token("hugging-face-token", "hf_", r"[A-Za-z0-9]{34,40}(?![A-Za-z0-9])", "hf_"),
    # Postman, Linear, Notion, Airtable, Shopify, Doppler, Figma: "API keys" or "Access tokens" of each.
    _token("postman-key", "PMAK-", r"[0-9a-f]{24}-[0-9a-f]{34}", "pmak-"),
    _token("linear-key", "lin_api_", r"[A-Za-z0-9]{32,64}", "lin_api_"),
    _token("notion-token", "ntn_", r"[A-Za-z0-9]{40,60}", "ntn_"),
    _token(
        "shopify-token", "shp(?:at|ca|pa|ss)_", r"[0-9A-Fa-f]{32}", "shpat_", "shpca_", "shppa_", "shpss_"
    ),
    _token(
        "doppler-token",
        r"dp\.(?:pt|st|ct|sa)\.",
        r"[A-Za-z0-9._-]{40,100}",
        "dp.pt.",
        "dp.st.",
        "dp.ct.",
        "dp.sa.",
    ),
    _token("figma-token", "figd_", rf"{_B64URL}{{40,60}}", "figd_"),
    # --- by the name that stands before it ---
    # RFC 3986, section 3.2.1: user information; connection strings of databases and queues are the same.
    _rule(
        "password-in-url",
        r"://[^\s/@:?#\"'<>\\\x00]{0,120}:([^\s/@\"'<>\\\x00]{1,4000})@",
        "://",
        accepts=_password_in_url,
    ),
    _rule("token-in-url", r"://([A-Za-z0-9_.~%-]{20,4000}):?@", "://", accepts=_value_looks_secret),
    *_each("named-secret", _NAMED, _IS + _VALUE, _named_secret, rest=_VALUE_GOES_ON),
    # curl(1): --user.
    _rule(
        "curl-user",
        r"curl[^\n\x00]{0,200}?[ \t](?:-u|--user)[ =]?[\"']?[^\s\"':\x00]{1,64}:([^\s\"'\x00]{4,200})",
        "curl",
        accepts=_password_in_url,
        rest=r"[^\s\"'\x00]*+",
    ),
    # RFC 6265: what a session is known by.
    *_each(
        "session-cookie",
        ("sessionid", "phpsessid", "connect.sid"),
        r"=([a-z0-9%._~+/-]{16,300})",
        _value_looks_secret,
        rest=r"[a-z0-9%._~+/-]*+",
    ),
    # --- places that are nobody else's business ---
    _rule(
        "private-url",
        r":\\?/\\?/([^\s/?#\"'<>\\^`{|}\x00]{1,300})",
        ":/",
        ":\\/",
        fold=True,
        accepts=_private_authority,
    ),
)

NAMES: frozenset[str] = frozenset(rule.name for rule in RULES)
