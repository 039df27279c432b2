"""Keys of the log for tests: made, configured and introduced through the verbs."""

from pathlib import Path

import pytest
from django.conf import settings

from evidence.domain import log_keys
from evidence.domain.clock import system_clock
from evidence.models import LedgerKey


class Keys:
    """A folder of private keys, and which of them ``CAVRA_LEDGER_KEYS`` names."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        self.configure()

    def configure(self, *names: str) -> None:
        """Let the setting name exactly these."""
        self.patch.setattr(settings, "CAVRA_LEDGER_KEYS", [f"file:{self.path(name)}" for name in names])
        self.names = names

    def path(self, name: str) -> Path:
        return self.folder / name

    def add(self, name: str = "key") -> LedgerKey:
        """Make a key, configure it beside the others and introduce it."""
        log_keys.make(self.path(name))
        self.configure(*self.names, name)
        (row,) = log_keys.introduce(by=None, clock=system_clock)
        return row
