"""What several tests of the evidence app share."""

from collections.abc import Iterator

import pytest

from evidence.domain import replay


@pytest.fixture
def log_alone() -> Iterator[None]:
    """For tests of the log itself: nobody stands behind its documents, so no row is told from them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "TABLES", {})
        patch.setattr(replay, "UNTOLD", set())
        yield
