"""Many requests at once: the balance holds, and a key is charged once."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.stack.services import Service


def test_a_hundred_parallel_sends_with_credit_for_forty(service: Service) -> None:
    user = service.user("overdraft")
    with ThreadPoolExecutor(100) as clients:
        statuses = Counter(
            answer.status_code for answer in clients.map(lambda _: user.send("hello"), range(100))
        )
    assert statuses == {201: 40, 402: 60}
    assert user.tokens() == 0
    ledger = service.at_rest()
    assert len(ledger.messages_of(user.id)) == 40
    assert ledger.balance_of(user.id) == 0


@pytest.mark.parametrize("key", ["default", "order-7"])
def test_one_key_fifty_times_in_parallel_is_one_message(service: Service, key: str) -> None:
    user = service.user(f"repeats-{key}")
    with ThreadPoolExecutor(50) as clients:
        answers = list(clients.map(lambda _: user.send("hello", key=key), range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert len({answer.headers["location"] for answer in answers}) == 1
    assert user.tokens() == 3900
    assert user.send("another text", key=key).status_code == 422
    assert service.user(f"stranger-{key}").send("hello", key=key).status_code == 201
    ledger = service.at_rest()
    assert len(ledger.messages_of(user.id)) == 1
    assert ledger.balance_of(user.id) == 3900


def test_fifty_parallel_registrations_of_one_name_make_one_account(service: Service) -> None:
    def attempt(number: int) -> int:
        from httpx import post

        name = "Popular" if number % 2 else "popular"
        body = {"username": name, "password": "correct horse battery"}
        return post(f"{service.url}/users/register/", json=body, timeout=60).status_code

    with ThreadPoolExecutor(50) as clients:
        statuses = Counter(clients.map(attempt, range(50)))
    assert statuses == {201: 1, 409: 49}
    assert service.ledger().violations() == []
