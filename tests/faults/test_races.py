"""Many requests at once: the balance holds, and a key is charged once, on SQLite and PostgreSQL."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from tests.faults.checker import check
from tests.faults.counts import count
from tests.faults.journal import Journal
from tests.stack.client import OPTIONS, PASSWORD
from tests.stack.services import FullService, Service, make_service

ROUNDS = count(short=3, full=100)
OVERDRAFTS = count(short=1, full=20)
#: Rounds of one user, who can pay for them.
ROUNDS_A_USER = 25


@pytest.fixture(scope="module", params=["embedded", "full"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with (
        TemporaryDirectory(prefix="chatledger-") as folder,
        make_service(request.param, Path(folder), {}) as running,
    ):
        yield running


def test_a_hundred_parallel_sends_with_credit_for_forty(service: Service) -> None:
    users = [service.user(f"overdraft-{number}") for number in range(OVERDRAFTS)]
    with ThreadPoolExecutor(100) as clients:
        for user in users:
            answers = clients.map(lambda _, user=user: user.send("hello"), range(100))
            assert Counter(answer.status_code for answer in answers) == {201: 40, 402: 60}
            assert user.tokens() == 0
    ledger = check(service)
    for user in users:
        assert len(ledger.messages_of(user.id)) == 40
        assert ledger.balance_of(user.id) == 0


def test_two_processes_that_share_accounts_charge_for_each_send_once() -> None:
    """Their users send to both at once, each request with a key that is sent to both."""
    with (
        TemporaryDirectory(prefix="chatledger-") as folder,
        FullService(Path(folder), webs=2) as running,
        ThreadPoolExecutor(32) as clients,
    ):
        for number in range(OVERDRAFTS):
            user = running.user(f"shared-{number}")
            there = [replace(user, url=url) for url in running.stack.urls]
            # More sends than it has credit for, and each of them at both.
            sends = [(each, f"key-{key}") for key in range(60) for each in there]
            answers = list(clients.map(lambda send: send[0].send("hello", key=send[1]), sends))
            assert Counter(answer.status_code for answer in answers) == {201: 80, 402: 40}
            accepted = {a.headers["location"] for a in answers if a.status_code == 201}
            assert len(accepted) == 40
            assert {each.tokens() for each in there} == {0}
        assert running.ledger().violations() == []


def test_one_key_fifty_times_in_parallel_is_one_message(service: Service) -> None:
    users = [service.user(f"repeats-{number}") for number in range(-(-ROUNDS // ROUNDS_A_USER))]
    stranger = service.user("stranger")
    journal = Journal()
    with ThreadPoolExecutor(50) as clients:
        for number in range(ROUNDS):
            user, key = users[number // ROUNDS_A_USER], f"order-{number}"
            answers = list(clients.map(lambda _, u=user, k=key: u.send("hello", key=k), range(50)))
            assert {answer.status_code for answer in answers} == {201}
            assert len({answer.text for answer in answers}) == 1
            assert len({answer.headers["location"] for answer in answers}) == 1
            assert user.send("another text", key=key).status_code == 422
            # Another user's key is another key.
            assert stranger.send("hello", key=key).status_code == (201 if number < 40 else 402)
            assert journal.send(user, "hello", key).accepted
    ledger = check(service, journal)
    for number, user in enumerate(users):
        rounds = min(ROUNDS_A_USER, ROUNDS - number * ROUNDS_A_USER)
        assert len(ledger.messages_of(user.id)) == rounds
        assert ledger.balance_of(user.id) == user.tokens() == 4000 - 100 * rounds


def test_fifty_parallel_registrations_of_one_name_make_one_account(service: Service) -> None:
    def attempt(number: int) -> int:
        body = {"username": "Popular" if number % 2 else "popular", "password": PASSWORD}
        return httpx.post(f"{service.url}/users/register/", json=body, **OPTIONS).status_code

    with ThreadPoolExecutor(50) as clients:
        statuses = Counter(clients.map(attempt, range(50)))
    assert statuses == {201: 1, 409: 49}
    assert service.ledger().violations() == []
