"""HTTP tests use real tokens and the real URL table."""

import pytest

from tests.builders import World
from tests.endpoints import Prepared, prepared
from tests.evidence.ledger_keys import Keys


@pytest.fixture
def ready(world: World, keys: Keys) -> Prepared:
    """A world in which every POST has something to be about."""
    return prepared(world, keys)
