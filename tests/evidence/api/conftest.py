"""HTTP tests use real tokens and the real URL table."""

import pytest

from tests import endpoints
from tests.endpoints import Prepared
from tests.evidence.ledger_keys import Keys
from tests.receiver import Receiver


@pytest.fixture
def receiver() -> Receiver:
    """At one address for all of these tests, and new for each."""
    return endpoints.steady_receiver()


@pytest.fixture
def ready(db: None, receiver: Receiver, keys: Keys) -> Prepared:
    """A world in which every POST has something to be about."""
    return endpoints.ready(receiver, keys)
