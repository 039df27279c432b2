"""The capsule's verifier as its own file, loaded the way an auditor has it: outside of the product's packages."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from django.conf import settings

FILE = Path(settings.BASE_DIR) / "evidence" / "capsule" / "verify.py"


def load() -> ModuleType:
    """The file as a module."""
    spec = importlib.util.spec_from_file_location("capsule_verifier", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where a named tuple looks its own module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


verify: Any = load()


def run(
    *arguments: str, cwd: Path, file: Path = FILE, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run the file with a plain interpreter: isolated, and with no environment but what is given."""
    return subprocess.run(
        [sys.executable, "-I", str(file), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
