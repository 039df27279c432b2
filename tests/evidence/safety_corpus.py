"""Text for the rules of public safety: secrets made of parts at run time, none of them anybody's, and plain text.

Nothing here reads like a credential in the source: a head that its vendor publishes meets random characters only when
a test runs.
"""

import base64
import json
import random
import string
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

ALNUM = string.ascii_letters + string.digits
LOWER = string.ascii_lowercase + string.digits
UPPER = string.ascii_uppercase + string.digits
HEX = "0123456789abcdef"
BASE32 = string.ascii_uppercase + "234567"
URL64 = ALNUM + "_-"
STD64 = ALNUM + "+/"

Make = Callable[[random.Random], str]


def some(alphabet: str, length: int) -> Make:
    """Random characters, a letter and a digit among the first, so that no rule's look takes it for a word."""

    def make(rng: random.Random) -> str:
        drawn = [rng.choice(alphabet) for _ in range(length)]
        drawn[1] = rng.choice([c for c in alphabet if c.isalpha()])
        drawn[0] = rng.choice([c for c in alphabet if c.isalnum()])
        drawn[2] = rng.choice([c for c in alphabet if c.isdigit()])
        return "".join(drawn)

    return make


def digits(length: int) -> Make:
    return lambda rng: "".join(rng.choice(string.digits) for _ in range(length))


def joined(*parts: str | Make) -> Make:
    """Parts one after the other."""
    return lambda rng: "".join(part if isinstance(part, str) else part(rng) for part in parts)


def b64(make: Make) -> Make:
    """What another one makes, in base64."""
    return lambda rng: base64.b64encode(make(rng).encode()).decode()


def url64(make: Make) -> Make:
    return lambda rng: base64.urlsafe_b64encode(make(rng).encode()).decode().rstrip("=")


def one_of(*makes: str | Make) -> Make:
    def make(rng: random.Random) -> str:
        chosen = rng.choice(makes)
        return chosen if isinstance(chosen, str) else chosen(rng)

    return make


def guid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def pem(label: str) -> Make:
    """A key in PEM of random bytes."""

    def make(rng: random.Random) -> str:
        body = base64.encodebytes(rng.randbytes(240)).decode()
        return f"-----BEGIN {label}-----\n{body}-----END {label}-----"

    return make


def jwt(rng: random.Random) -> str:
    header = url64(joined('{"alg":"HS256","typ":"JWT","kid":"', some(ALNUM, 6), '"}'))(rng)
    claims = url64(joined('{"sub":"', some(ALNUM, 12), '","iat":1750000000}'))(rng)
    return f"{header}.{claims}.{some(URL64, 43)(rng)}"


def jwe(rng: random.Random) -> str:
    header = url64(joined('{"alg":"dir","enc":"A256GCM","kid":"', some(ALNUM, 6), '"}'))(rng)
    return f"{header}..{some(URL64, 16)(rng)}.{some(URL64, 80)(rng)}.{some(URL64, 22)(rng)}"


PRIVATE_HOSTS = one_of(
    "10.1.2.3", "172.16.0.9", "192.168.178.20", "127.0.0.1", "169.254.169.254", "127.1", "0x7f000001", "2130706433",
    "017700000001", "[::1]", "[fe80::1%25eth0]", "[fc00::12]", "[::ffff:10.0.0.1]", "100.64.3.4", "localhost",
    "splunk", "jira.internal", "vault.corp", "nas.local", "wiki.lan", "printer.home.arpa", "api.svc.cluster.local",
)  # fmt: skip

# By rule: how a secret of it is written. What only its name gives away comes with the name.
SECRETS: dict[str, tuple[Make, ...]] = {
    "private-key": tuple(
        pem(f"{kind}PRIVATE KEY{end}")
        for kind, end in (
            ("", ""),
            ("RSA ", ""),
            ("EC ", ""),
            ("OPENSSH ", ""),
            ("ENCRYPTED ", ""),
            ("PGP ", " BLOCK"),
        )
    ),
    "putty-private-key": (joined("PuTTY-User-Key-", "File-3: ssh-ed25519 ", some(ALNUM, 8)),),
    "age-secret-key": (joined("AGE-SECRET-", "KEY-1", some(UPPER, 58)),),
    "note-signing-key": (joined("PRIVATE+", "KEY+log.example+", some(HEX, 8), "+", some(STD64, 44)),),
    "json-web-token": (jwt,),
    "json-web-encryption": (jwe,),
    "authorization-value": (
        joined("Authorization: Bearer ", some(URL64, 32)),
        joined("authorization: basic ", b64(joined("svc:", some(ALNUM, 10)))),
        joined('"Authorization": "Splunk ', guid, '"'),
        joined("Authorization: SSWS ", some(ALNUM, 42)),
    ),
    "authorization-token": (joined("Authorization: Token token=", some(URL64, 20)),),
    "aws-access-key-id": (joined(one_of("AKIA", "ASIA"), some(BASE32, 16)),),
    "aws-secret-access-key": (
        joined("aws_secret_access_key = ", some(STD64, 40)),
        joined('"SecretAccessKey": "', some(STD64, 40), '"'),
    ),
    "aws-bedrock-key": (joined("AB", "SK", some(STD64, 128)),),
    "google-api-key": (joined("AI", "za", some(URL64, 35)),),
    "google-oauth-token": (joined("ya", "29.", some(URL64, 120)),),
    "google-oauth-secret": (joined("GOC", "SPX-", some(URL64, 28)),),
    "google-service-account-key": (joined('{"type": "service_account", "private_key_id": "', some(HEX, 40), '"}'),),
    "azure-storage-key": (
        joined("DefaultEndpointsProtocol=https;AccountName=logs;Account", "Key=", some(STD64, 86), "=="),
    ),
    "azure-shared-access-key": (
        joined("Endpoint=sb://hub.servicebus.windows.net/;SharedAccess", "Key=", some(STD64, 43), "="),
    ),
    "azure-shared-access-signature": (
        joined("https://logs.blob.core.windows.net/c?sv=2024-11-04&se=2026-12-01&sp=r&sig=", some(ALNUM, 43), "%3D"),
    ),
    "entra-client-secret": (joined(some(ALNUM, 3), "8Q", "~", some(URL64, 34)),),
    "digitalocean-token": (joined(one_of("dop", "doo"), "_v1_", some(HEX, 64)),),
    "heroku-key": (joined("HR", "KU-", some(URL64, 60)),),
    "github-token": (joined(one_of("ghp", "gho", "ghu", "ghs", "ghr"), "_", some(ALNUM, 36)),),
    "github-fine-grained-token": (joined("github", "_pat_", some(ALNUM, 22), "_", some(ALNUM, 59)),),
    "gitlab-token": (
        joined(one_of("glpat", "gldt", "glrt", "glptt"), "-", some(URL64, 20)),
        joined("gl", "pat-", some(URL64, 27), ".01.", some(LOWER, 9)),
    ),
    "npm-token": (joined("npm", "_", some(ALNUM, 36)),),
    "pypi-token": (joined("pypi-", "AgE", some(URL64, 150)),),
    "rubygems-key": (joined("rubygems", "_", some(HEX, 48)),),
    "docker-token": (joined("dckr", "_pat_", some(URL64, 27)),),
    "nuget-key": (joined("oy", "2", some(LOWER, 43)),),
    "slack-token": (
        joined(one_of("xoxb", "xoxp", "xoxa"), "-", digits(12), "-", some(ALNUM, 24)),
    ),
    "slack-app-token": (joined("xapp", "-1-", some(UPPER, 11), "-", some(HEX, 64)),),
    "slack-webhook": (
        joined("https://hooks.slack", ".com/services/T", some(UPPER, 10), "/B", some(UPPER, 10), "/", some(ALNUM, 24)),
    ),
    "teams-webhook": (
        joined("https://acme.webhook.office", ".com/webhookb2/", guid, "@", guid, "/IncomingWebhook/", some(HEX, 32)),
    ),
    "power-automate-url": (
        joined(
            "https://prod-12.westeurope.logic.azure", ".com:443/workflows/", some(HEX, 32),
            "/triggers/manual/paths/invoke?api-version=2016-06-01&sp=%2Ftriggers&sv=1.0&sig=", some(URL64, 43),
        ),
        joined(
            "https://default", some(HEX, 24), ".12.environment.api.powerplatform", ".com/powerautomate/x?sig=",
            some(URL64, 43),
        ),
    ),
    "discord-webhook": (
        joined("https://discord", ".com/api/webhooks/", digits(18), "/", some(URL64, 68)),
    ),
    "telegram-bot-token": (joined("12", "34567", "890", ":AA", some(URL64, 33)),),
    "atlassian-token": (joined("AT", "ATT3xFfGF0", some(URL64, 170), "=", some(UPPER, 8)),),
    "bitbucket-token": (joined("AT", "BB", some(ALNUM, 32)),),
    "pagerduty-key": (
        joined("PAGERDUTY_ROUTING_KEY=", some(HEX, 32)),
        joined("pagerduty api token: u+", some(URL64, 18)),
    ),
    "standard-webhooks-secret": (joined("wh", "sec_", some(STD64, 32)),),
    "datadog-key": (
        joined("DD_API_KEY=", some(HEX, 32)),
        joined("datadog app key: ", some(HEX, 40)),
        joined("DD-API-KEY: ", some(HEX, 32)),
    ),
    "new-relic-key": (joined("NR", "AK-", some(UPPER, 27)),),
    "grafana-token": (joined("gl", "sa_", some(ALNUM, 32), "_", some(HEX, 8)), joined("gl", "c_", some(STD64, 60))),
    "sentry-token": (joined("sntr", "ys_", some(URL64, 80)),),
    "stripe-key": (joined(one_of("sk", "rk"), one_of("_live_", "_test_"), some(ALNUM, 24)),),
    "square-token": (joined("sq0", "atp-", some(URL64, 22)),),
    "square-access-token": (joined("EA", "AA", some(URL64, 60)),),
    "twilio-key": (joined("S", "K", some(HEX, 32)),),
    "sendgrid-key": (joined("S", "G.", some(URL64, 22), ".", some(URL64, 43)),),
    "mailgun-key": (joined("key", "-", some(HEX, 32)),),
    "mailchimp-key": (joined(some(HEX, 32), "-us", "12"),),
    "vault-token": (joined("hv", one_of("s", "b"), ".", some(URL64, 24)),),
    "terraform-token": (joined(some(ALNUM, 14), ".atlas", "v1.", some(URL64, 67)),),
    "databricks-token": (joined("da", "pi", some(HEX, 32)),),
    "openai-key": (joined("s", "k-proj-", some(URL64, 64)), joined("s", "k-ant-api03-", some(URL64, 90))),
    "hugging-face-token": (joined("h", "f_", some(ALNUM, 34)),),
    "postman-key": (joined("PM", "AK-", some(HEX, 24), "-", some(HEX, 34)),),
    "linear-key": (joined("lin", "_api_", some(ALNUM, 40)),),
    "notion-token": (joined("nt", "n_", some(ALNUM, 46)),),
    "shopify-token": (joined("shp", "at_", some(HEX, 32)),),
    "doppler-token": (joined("dp", ".st.dev.", some(ALNUM, 43)),),
    "figma-token": (joined("fi", "gd_", some(URL64, 43)),),
    "password-in-url": (
        joined("https://deploy:", some(ALNUM, 12), "@git.example.com/x.git"),
        joined("postgres://app:", some(ALNUM, 16), "@db.example.com:5432/app"),
        joined("mongodb+srv://app:", some(ALNUM, 16), "@cluster0.example.net/app"),
        joined("redis://:", some(ALNUM, 16), "@cache.example.com:6379/0"),
        joined("amqps://svc:", some(ALNUM, 9), "@mq.example.com/vhost"),
    ),
    "token-in-url": (joined("https://", some(ALNUM, 40), "@git.example.com/x.git"),),
    "named-secret": (
        joined("password=", some(ALNUM, 12)),
        joined("the password is ", some(ALNUM, 9)),
        joined('{"client_secret": "', some(URL64, 32), '"}'),
        joined("SLACK_SIGNING_SECRET=", some(HEX, 32)),
        joined("api_key: ", some(ALNUM, 24)),
        joined("?access_token=", some(URL64, 30), "&page=2"),
        joined("Server=db;User Id=app;Password=", some(ALNUM, 14), ";"),
        joined("x-api-key: ", some(ALNUM, 40)),
        joined("routing_key => '", some(HEX, 32), "'"),
        joined("passphrase: ", some(ALNUM, 7), "$", some(ALNUM, 4)),
        joined("HEC token ", "= ", guid),
    ),
    "curl-user": (joined("curl -sS -u svc:", some(ALNUM, 12), " https://api.example.com/"),),
    "session-cookie": (joined("Cookie: JSESSIONID=", some(UPPER, 32)), joined("sessionid=", some(LOWER, 32))),
    "private-url": (
        joined(one_of("http", "https", "wss", "ldap"), "://", PRIVATE_HOSTS, one_of("", ":8088", ":8443"), "/path"),
    ),
}  # fmt: skip


def secrets(number: int, *, seed: int) -> Iterator[tuple[str, str]]:
    """``number`` pairs of a rule and a text that it has to find, every rule and every way in turn."""
    rng = random.Random(seed)
    ways = [(rule, make) for rule, makes in SECRETS.items() for make in makes]
    for n in range(number):
        rule, make = ways[n % len(ways)]
        yield rule, make(rng)


# --- text without a secret ------------------------------------------------------------------------------------------

_TEXT = (
    "the drill was announced to both owners and answered within an hour; the second receiver took it at the third try "
    "after its certificate had been renewed and nobody had to be woken up because the window was still open when the "
    "approver read what would be sent and compared the digest on the button with the one in the ticket before the vote"
)
_WORDS = _TEXT.split()
_HOSTS = (
    "siem.example.com",
    "hec.example.net",
    "tickets.example.org",
    "www.rfc-editor.org",
    "docs.python.org",
)
_PATHS = (
    "/services/collector/event",
    "/api/v2/logs",
    "/rest/api/3/issue",
    "/rfc/rfc8785.html",
    "/3/library/re.html",
)


def words(rng: random.Random, number: int) -> str:
    return " ".join(rng.choice(_WORDS) for _ in range(number))


def sentence(rng: random.Random) -> str:
    return words(rng, rng.randint(6, 18)).capitalize() + "."


def moment(rng: random.Random) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(
        seconds=rng.randrange(30_000_000), microseconds=rng.randrange(10**6)
    )


def sha256(rng: random.Random) -> str:
    return "".join(rng.choice(HEX) for _ in range(64))


def own_id(rng: random.Random) -> str:
    prefix = rng.choice(
        ("gordackdelivery", "gordackaudit", "gordackretryapproval", "rcd", "gordackretryexec")
    )
    return f"{prefix}-{sha256(rng)[:16]}"


def url(rng: random.Random) -> str:
    return f"https://{rng.choice(_HOSTS)}{rng.choice(_PATHS)}"


def _access(r: random.Random) -> str:
    path = f"/console/cases/{own_id(r)}.splunk/"
    agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"
    at = f"{moment(r):%d/%b/%Y:%H:%M:%S} +0000"
    return f'203.0.113.{r.randrange(255)} - - [{at}] "GET {path} HTTP/1.1" 200 {r.randrange(90000)} "-" "{agent}"'


def _kubelet(r: random.Random) -> str:
    pod = f"release-worker-{sha256(r)[:9]}-{sha256(r)[:5]}"
    return (
        f"{moment(r):%b %d %H:%M:%S} node{r.randrange(40)} kubelet[{r.randrange(30000)}]: pod {pod} restarted"
    )


def _traceback(r: random.Random) -> str:
    place = f'File "/usr/lib/python3.11/asyncio/tasks.py", line {r.randrange(900)}, in wait_for'
    return (
        f"Traceback (most recent call last):\n  {place}\n    return fut.result()\nTimeoutError: {sentence(r)}"
    )


def _java(r: random.Random) -> str:
    place = f"com.example.release.Sender.send(Sender.java:{r.randrange(900)})"
    return (
        'Exception in thread "main" java.net.SocketTimeoutException: Read timed out\n'
        f"\tat {place}\n\tat java.base/java.lang.Thread.run(Thread.java:1583)"
    )


def _event(r: random.Random) -> str:
    return json.dumps(
        {
            "case": f"{own_id(r)}.webhook",
            "manifest_digest": sha256(r),
            "at": moment(r).isoformat(),
            "attempt_no": r.randrange(9),
            "may_have_arrived": False,
            "notes": sentence(r),
        }
    )


def _commit(r: random.Random) -> str:
    head = f"commit {sha256(r)[:40]}\nAuthor: Ann Example <ann@example.com>"
    return f"{head}\nDate:   {moment(r):%a %b %d %H:%M:%S %Y} +0000\n\n    {sentence(r)}"


def _public(label: str, size: int) -> Make:
    def make(r: random.Random) -> str:
        body = base64.encodebytes(r.randbytes(size)).decode()
        return f"-----BEGIN {label}-----\n{body}-----END {label}-----"

    return make


def _head(r: random.Random) -> str:
    root, signature = (base64.b64encode(r.randbytes(size)).decode() for size in (32, 68))
    return f"log.example/{r.randrange(99)}\n{r.randrange(10**6)}\n{root}\n\n\u2014 log.example {signature}"


def _shell(r: random.Random) -> str:
    image = f"image.tag=v{r.randrange(9)}.{r.randrange(99)}"
    return (
        "+ kubectl -n release get secret release-tls -o name\nsecret/release-tls\n"
        f"+ helm upgrade --set {image} release ./chart"
    )


def _database(r: random.Random) -> str:
    return (
        f"postgresql 15.{r.randrange(9)} on x86_64, {r.randrange(10**6)} rows, index record_key_of, "
        f"task 0x{sha256(r)[:8]}, risk SK-{r.randrange(99)}, AC{r.randrange(9)}"
    )


PLAIN: tuple[Make, ...] = (
    lambda r: f"{moment(r).isoformat()} INFO evidence.sender: POST {url(r)} 503 in {r.randrange(9000)} ms",
    _access,
    _kubelet,
    _traceback,
    _java,
    _event,
    _commit,
    _head,
    _shell,
    _database,
    _public("CERTIFICATE", 900),
    _public("PUBLIC KEY", 91),
    lambda r: f"sha256:{sha256(r)}  release-{r.randrange(40)}.{r.randrange(20)}.tar.gz",
    lambda r: f"digest of the token file: sha256:{sha256(r)}",
    lambda r: f"{guid(r)} {guid(r)} {own_id(r)} {base64.b64encode(r.randbytes(32)).decode()}",
    lambda r: " ".join(sentence(r) for _ in range(5)),
    lambda r: f"log.example+{sha256(r)[:8]}+{base64.b64encode(r.randbytes(33)).decode()}",
    lambda r: f"ssh-ed25519 {base64.b64encode(r.randbytes(51)).decode()} ann@laptop",
    lambda r: f"Authorization: Bearer <token>, x-api-key: ${{API_KEY}}; {sentence(r)}",
    lambda r: f"Refused with 401: the bearer token had expired, so the operator renewed it. {sentence(r)}",
    lambda r: "basic authentication is off; token: missing; password: required; secret = os.environ[NAME]",
    lambda r: (
        f"token_ref: env:SPLUNK_TOKEN, authorization_ref=file:jira, password: ********, secret: {own_id(r)}"
    ),
    lambda r: (
        f"csrf token missing or incorrect; idempotency-key: {sha256(r)[:32]}; primary key: {r.randrange(10**9)}"
    ),
    lambda r: f"password changed at 2026-{r.randrange(1, 13):02}-01; the token is valid until 2026-12-31",
    lambda r: (
        f"docker pull registry.example.com/worker:{r.randrange(9)}.{r.randrange(30)}@sha256:{sha256(r)}"
    ),
    lambda r: (
        f"<https://tools.example.com/browse/CHG-{r.randrange(9999)}?focusedCommentId={r.randrange(10**6)}>"
    ),
    lambda r: (
        f"s3://release-evidence/{moment(r):%Y/%m/%d}/{guid(r)}.jsonl connector://splunk_eu urn:uuid:{guid(r)}"
    ),
    lambda r: (
        f'ETag: W/"{sha256(r)[:32]}" traceparent: 00-{sha256(r)[:32]}-{sha256(r)[:16]}-01 id: {guid(r)}'
    ),
    lambda r: f"data:image/png;base64,{base64.b64encode(r.randbytes(600)).decode()}",
    lambda r: (
        f"Ledger key id {sha256(r)[:8]}; key: ledger-2026-{r.randrange(1, 13):02}; session key by x25519"
    ),
)


def plain(size: int, *, seed: int) -> Iterator[str]:
    """Texts without a secret, ``size`` characters or more of them, of every sort in turn."""
    rng, made, n = random.Random(seed), 0, 0
    while made < size:
        text = PLAIN[n % len(PLAIN)](rng)
        made, n = made + len(text), n + 1
        yield text
