"""The promises of a lease, on the leases that this profile uses."""

import time
from uuid import uuid4

import pytest

from eventstore.leases import Leases, get_leases, holding


@pytest.fixture
def leases() -> Leases:
    get_leases.forget()
    return get_leases()


@pytest.fixture
def name() -> str:
    return f"test:{uuid4()}"


def test_a_lease_has_one_holder_at_a_time(leases: Leases, name: str) -> None:
    assert leases.renew(name, "alice", 10)
    assert not leases.renew(name, "bob", 10)
    assert leases.holder_of(name) == "alice"


def test_its_holder_renews_it_and_gives_it_back(leases: Leases, name: str) -> None:
    assert leases.renew(name, "alice", 10)
    assert leases.renew(name, "alice", 10)
    leases.release(name, "bob")
    assert leases.holder_of(name) == "alice"
    leases.release(name, "alice")
    assert leases.holder_of(name) is None
    assert leases.renew(name, "bob", 10)


def test_a_lease_that_is_not_renewed_runs_out(leases: Leases, name: str) -> None:
    assert leases.renew(name, "alice", 0.05)
    deadline = time.monotonic() + 5
    while not leases.renew(name, "bob", 10):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_taking_a_lease_says_how_often_it_was_taken(leases: Leases, name: str) -> None:
    for number in range(1, 4):
        assert leases.take(name, f"worker-{number}", 0.2) == number
        assert leases.take(name, "somebody else", 10) == 0
        run_out(leases, name)
    assert leases.take(f"{name}:another", "alice", 10) == 1


def test_a_lease_that_was_given_back_was_not_taken(leases: Leases, name: str) -> None:
    for _ in range(3):
        assert leases.take(name, "alice", 10) == 1
        leases.release(name, "alice")


def run_out(leases: Leases, name: str) -> None:
    deadline = time.monotonic() + 5
    while leases.holder_of(name) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_how_often_a_lease_was_taken_is_forgotten_in_time(
    leases: Leases, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventstore.leases.COUNTED_SECONDS", 1)
    assert leases.take(name, "alice", 10) == 1
    assert leases.take(name, "alice", 10) == 2
    time.sleep(1.1)
    assert leases.take(name, "alice", 10) == 1


def test_holding_a_lease_gives_it_back_at_the_end(leases: Leases, name: str) -> None:
    with holding(name, "alice") as mine, holding(name, "bob") as theirs:
        assert (mine, theirs) == (1, 0)
    assert leases.holder_of(name) is None


def test_a_held_lease_is_renewed_as_long_as_it_takes(
    leases: Leases, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough that a busy machine does not renew it too late.
    monkeypatch.setattr("eventstore.leases.LEASE_SECONDS", 1)
    monkeypatch.setattr("eventstore.leases.RENEW_SECONDS", 0.05)
    monkeypatch.setattr("eventstore.leases._keeper", type(_keeper())())
    with holding(name, "alice"):
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert not leases.renew(name, "bob", 10)
            time.sleep(0.02)


def _keeper() -> object:
    from eventstore import leases

    return leases._keeper
