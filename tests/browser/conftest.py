"""Browser tests need Chromium; without one they are skipped, which is a failure with CI=true."""

import os

import pytest

CHROMIUM = os.environ.get("CAVRA_TEST_BROWSER", "/usr/bin/chromium")


@pytest.fixture(autouse=True)
def _chromium_is_there() -> None:
    if not os.access(CHROMIUM, os.X_OK):
        pytest.skip(f"no browser at {CHROMIUM}; set CAVRA_TEST_BROWSER to a Chromium")
