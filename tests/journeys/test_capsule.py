"""An auditor takes a case away and checks it on a machine that has nothing but Python (P13)."""

import hashlib
import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.evidence.ledger_keys import Keys
from tests.evidence.verifier import run
from tests.http import Api
from tests.journeys.conftest import Cast

pytestmark = pytest.mark.django_db(transaction=True)


def downloaded(api: Api, path: str) -> bytes:
    """The bytes at an address of the API."""
    request = urllib.request.Request(
        api.base + path, headers={"authorization": f"Bearer {api.token}", "accept": "*/*"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        data: bytes = answer.read()
        return data


def test_an_auditor_checks_a_case_without_us(cast: Cast, keys: Keys, tmp_path: Path) -> None:
    """From the failed delivery through approval and retry; then a laptop with one file."""
    keys.add()
    failed = cast.failed_delivery()
    plan = cast.requested()
    cast.decide(plan)
    cast.run()
    made = cast.auditor.post(
        f"/api/v1/cases/{failed['cases'][0]['case']}/capsules", {"notes": "yearly audit"}
    )
    laptop = tmp_path / "laptop"
    laptop.mkdir()
    data = downloaded(cast.auditor, f"/api/v1/capsules/{made['capsule_id']}")
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (made["sha256"], made["size"])
    (laptop / "case.zip").write_bytes(data)
    with zipfile.ZipFile(laptop / "case.zip") as archive:
        archive.extractall(laptop)
    vkeys = downloaded(cast.auditor, "/api/v1/ledger/keys").decode()
    pinned = (laptop / "key.vkey").read_text().strip()
    assert pinned in vkeys.replace("\\u002b", "+")
    plain = run(cwd=laptop, file=laptop / "verify.py")
    assert (plain.returncode, plain.stderr) == (0, "")
    assert plain.stdout.startswith("key not pinned")
    whole = run(
        "--key",
        pinned,
        "--entries",
        f"{cast.base}/tlog",
        cwd=laptop,
        file=laptop / "verify.py",
        CAVRA_TOKEN=cast.auditor.token,
    )
    assert (whole.returncode, whole.stderr) == (0, "")
    assert f"has exactly {made['records']} records" in whole.stdout
    assert "No other of the" in whole.stdout
    # Without a token the entries cannot be read; nothing else is taken for proven then.
    refused = run("--key", pinned, "--entries", f"{cast.base}/tlog", cwd=laptop, file=laptop / "verify.py")
    assert (refused.returncode, "CAVRA_TOKEN" in refused.stdout) == (2, True)
    record = next((laptop / "records").iterdir())
    record.write_bytes(record.read_bytes().replace(b"webhook", b"webhooc", 1))
    changed = run(cwd=laptop, file=laptop / "verify.py")
    assert (changed.returncode, record.name in changed.stdout) == (1, True)
    # Work went on meanwhile; whoever asks again gets the same bytes.
    cast.failed_delivery()
    assert downloaded(cast.analyst, f"/api/v1/capsules/{made['capsule_id']}") == data
    cast.in_order()
