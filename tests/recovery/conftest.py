"""The recovery tests' worlds. Each is checked as a whole when its test ends."""

from collections.abc import Iterator

import pytest

from tests.builders import Clock, World
from tests.receiver import Receiver
from tests.recovery.checks import checked


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "tampers: changes rows behind the product's back, so the whole is not checked afterwards"
    )


@pytest.fixture
def world(db: None, receiver: Receiver, request: pytest.FixtureRequest) -> Iterator[World]:
    """People, a schedule and one webhook connector; log and receiver are compared afterwards."""
    yield from checked(World(receiver), request)


@pytest.fixture
def timed(db: None, receiver: Receiver, clock: Clock, request: pytest.FixtureRequest) -> Iterator[World]:
    """A world whose time stands until the test moves ``clock``."""
    yield from checked(World(receiver, clock=clock), request)


@pytest.fixture
def two(db: None, receiver: Receiver, request: pytest.FixtureRequest) -> Iterator[World]:
    """A world with two connectors, ``webhook`` and ``backup``."""
    yield from checked(World(receiver, providers=("webhook", "backup")), request)


@pytest.fixture
def committed(transactional_db: None, receiver: Receiver, request: pytest.FixtureRequest) -> Iterator[World]:
    """A world whose verbs really commit: for threads and processes."""
    yield from checked(World(receiver), request)


@pytest.fixture
def committed_two(
    transactional_db: None, receiver: Receiver, request: pytest.FixtureRequest
) -> Iterator[World]:
    """Two connectors, really committed."""
    yield from checked(World(receiver, providers=("webhook", "backup")), request)
