"""HTTP tests use real tokens and the real URL table."""

import pytest

from tests.builders import World
from tests.endpoints import Prepared, prepared


@pytest.fixture
def ready(world: World) -> Prepared:
    """A world in which every POST has something to be about."""
    return prepared(world)
