"""The sources run anywhere: no path of a machine, no host of a package registry."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

ROOT = Path(settings.BASE_DIR)
LEFT_BESIDE = {"__pycache__", "build", "data", "test-results"}
MACHINE = re.compile(r"(?<![\w.:-])/(?:home|root|work|Users|private)/\w")
# Where packages come from is the installer's configuration.
REGISTRY = re.compile(r"(?:index|registry|files)[\w.-]*\.(?:org|com|io|net)|--(?:extra-)?index-url|https?://")


def sources() -> Iterator[Path]:
    """Every file of the product; not what tools and running services leave beside them."""
    for folder, inner, files in os.walk(ROOT):
        inner[:] = [
            name for name in inner if name == ".ci" or (not name.startswith(".") and name not in LEFT_BESIDE)
        ]
        yield from (Path(folder) / name for name in files)


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    found = []
    files = list(sources())
    assert len(files) > 100
    for path in files:
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in MACHINE.finditer(text)]
    assert found == []


def test_lock_files_name_no_registry_and_every_hash() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (ROOT / name).read_text()
        assert REGISTRY.findall(text) == []
        pinned = [line for line in text.splitlines() if re.match(r"^[A-Za-z0-9]", line)]
        assert len(pinned) > 20
        assert [line for line in pinned if "==" not in line or not line.endswith("\\")] == []


def test_the_lock_files_of_uv_are_not_kept() -> None:
    """They name the registry they were made with."""
    assert [path.name for path in sources() if path.name in ("uv.lock", "pylock.toml")] == []
