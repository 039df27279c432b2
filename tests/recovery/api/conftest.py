"""HTTP tests use real tokens and the real URL table."""

from collections.abc import Iterator

import pytest

from tests import endpoints
from tests.endpoints import Prepared
from tests.evidence.ledger_keys import Keys
from tests.receiver import Receiver
from tests.recovery.checks import checked


@pytest.fixture
def receiver() -> Receiver:
    """At one address for all of these tests, and new for each."""
    return endpoints.steady_receiver()


@pytest.fixture
def ready(db: None, receiver: Receiver, keys: Keys, request: pytest.FixtureRequest) -> Iterator[Prepared]:
    """A world in which every POST has something to be about; log and receiver are compared afterwards."""
    made = endpoints.ready(receiver, keys)
    for _ in checked(made.world, request):
        yield made
