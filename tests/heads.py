"""Heads that lie beside the database, as the worker leaves them there."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings

from evidence.domain import checkpoints, notes
from evidence.models import LedgerHead

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def data_of_its_own(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """What belongs beside the database lies in ``folder`` for this test."""
    patch.setattr(settings, "CAVRA_DATA", folder)


def lay_outside(*, ahead: int = 1, origin: str = "", size: int = 0, root: bytes = b"\1" * 32) -> Path:
    """Put a signed head beside the database, ``ahead`` entries larger than it unless ``size`` says otherwise."""
    head = LedgerHead.objects.get()
    name = origin or head.origin
    path = checkpoints.outside_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    text = notes.checkpoint_text(name, size or head.size + ahead, root)
    path.write_text(notes.signed(text, [notes.Signer(name, KEY)]), encoding="utf-8")
    return path
