"""What the demo's commands share: who is in it, and the files that it keeps in CAVRA_DATA."""

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from django.conf import settings
from django.core.management.base import CommandError

from evidence.enums import Role

LOOPBACK = "127.0.0.1"
# Where the demo's connectors post to. A chat stays well when the others fail.
COLLECTOR = "/services/collector/event"
INTAKE = "/hooks/evidence"
CHAT = "/hooks/chat"
FAILING = (COLLECTOR, INTAKE)

# Sign-in name → full name and role.
CAST = {
    "m.lindqvist": ("Maja Lindqvist", Role.ANALYST),
    "k.osei": ("Kwame Osei", Role.ANALYST),
    "t.rey": ("Tomás Rey", Role.APPROVER),
    "r.novak": ("Radka Novák", Role.APPROVER),
    "i.adeyemi": ("Ife Adeyemi", Role.OPERATOR),
    "s.iyer": ("Sunita Iyer", Role.AUDITOR),
    "j.haas": ("Jonas Haas", Role.VIEWER),
    "d.campos": ("Dora Campos", Role.ADMINISTRATOR),
}

# Everybody has an address under this name, which belongs to nobody (RFC 2606).
MAIL_DOMAIN = "example.com"


@dataclass
class Login:
    """How one person of the demo signs in (password) and calls the API (bearer token)."""

    password: str = ""
    token: str = ""


@dataclass
class Logins:
    """Logins of one demo; ``log`` is the digest of the ledger's first record, so that they fit one database."""

    log: str
    people: dict[str, Login] = field(default_factory=dict)

    @classmethod
    def path(cls) -> Path:
        """Where they are kept, readable for this user alone."""
        return settings.CAVRA_DATA / "demo-logins.json"

    @classmethod
    def read(cls) -> "Logins | None":
        """What is kept, None when there is nothing yet."""
        try:
            kept = json.loads(cls.path().read_text())
        except FileNotFoundError:
            return None
        return cls(kept["log"], {name: Login(**login) for name, login in kept["people"].items()})

    def write(self) -> None:
        """Replace what is kept, all of it or nothing."""
        keep(self.path(), json.dumps(asdict(self), indent=2) + "\n")


def keep(path: Path, text: str) -> None:
    """Write a private file (0600) in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # made with mode 0600
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(name, path)


def port_file() -> Path:
    """Where the receiver's port is kept: connectors point at it, so it stays."""
    return settings.CAVRA_DATA / "demo-receiver.port"


def receiver_url(path: str = "") -> str:
    """Address of the demo's receiver; ``CommandError`` when it was never started on this data."""
    try:
        return f"http://{LOOPBACK}:{int(port_file().read_text())}{path}"
    except FileNotFoundError as error:
        raise CommandError(
            "The demo's receiver was never started here. Start it with: manage.py demo_receiver"
        ) from error
