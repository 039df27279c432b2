"""Evidence can run by itself: facts need no decisions (DESIGN §4)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
SETTINGS = """
from cavra_site.settings import *

INSTALLED_APPS = [app for app in INSTALLED_APPS if app != "recovery"]
ROOT_URLCONF = "alone_urls"
"""
URLS = """
from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("evidence.api.urls")),
    path("", include("evidence.api.history_urls")),
    path("", include("evidence.api.erasure_urls")),
    path("", include("evidence.console.urls")),
    path("admin/", admin.site.urls),
]
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``evidence_alone`` saw."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "alone_settings.py").write_text(SETTINGS)
    (folder / "alone_urls.py").write_text(URLS)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.architecture.evidence_alone"],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "alone_settings",
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
            "DATABASE_URL": f"sqlite:///{folder}/alone.sqlite3",
            "CAVRA_DATA": str(folder),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_it_never_loads_recovery(alone: dict[str, Any]) -> None:
    assert alone["recovery"] == []


def test_it_delivers_and_keeps_the_history(alone: dict[str, Any]) -> None:
    """Nobody listens: a truthful failure. The announcement and the delivery are found."""
    assert alone["states"] == ["failed"]
    assert alone["history"] == 2


def test_its_ledger_verifies_under_standing_guards(alone: dict[str, Any]) -> None:
    assert alone["verified"]["first"] is None
    assert alone["verified"]["records"] >= 8
    assert alone["guards"] == []
