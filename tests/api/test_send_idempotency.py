"""`POST /send/` with `Idempotency-Key`"""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from pytest_django import Settings

from tests.api.client import Api, User, assert_problem, places


def test_a_repeat_is_not_charged_and_gets_the_same_message(api: Api, alice: User) -> None:
    first = api.send(alice, "hello", idempotency_key="monday")
    again = api.send(alice, "hello", idempotency_key="monday")
    assert first.status_code == again.status_code == 201
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert api.balance(alice) == 3900


def test_parallel_repeats_cost_once_and_get_equal_answers(api: Api, alice: User) -> None:
    def send(_: int) -> tuple[int, str, str]:
        answer = api.send(alice, "hello", idempotency_key="default")
        return answer.status_code, answer.headers["location"], answer.text

    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(send, range(20)))
    assert len(answers) == 1
    assert answers.pop()[0] == 201
    assert api.balance(alice) == 3900


def test_another_text_is_refused_and_costs_nothing(api: Api, alice: User) -> None:
    api.send(alice, "hello", idempotency_key="monday")
    answer = api.send(alice, "bye", idempotency_key="monday")
    problem = assert_problem(answer, 422, "idempotency-key-reused")
    assert places(problem) == [["header", "Idempotency-Key"]]
    assert api.balance(alice) == 3900


def test_a_key_belongs_to_its_user(api: Api, alice: User, bob: User) -> None:
    locations = {
        api.send(user, "hello", idempotency_key="monday").headers["location"]
        for user in (alice, bob)
    }
    assert len(locations) == 2
    assert api.balance(bob) == 3900


def test_without_a_key_every_send_is_another_message(api: Api, alice: User) -> None:
    assert (
        api.send(alice, "hello").headers["location"] != api.send(alice, "hello").headers["location"]
    )
    assert api.balance(alice) == 3800


def test_a_repeat_gets_202_while_the_message_is_pending(
    api: Api, alice: User, held: threading.Event
) -> None:
    first = api.send(alice, "hold it", idempotency_key="k", prefer="respond-async")
    again = api.send(alice, "hold it", idempotency_key="k", prefer="respond-async")
    assert first.status_code == again.status_code == 202
    assert first.json() == again.json()


def test_a_repeat_of_an_answered_message_has_nothing_to_wait_for(api: Api, alice: User) -> None:
    first = api.send(alice, "hello", idempotency_key="k")
    again = api.send(alice, "hello", idempotency_key="k", prefer="respond-async")
    assert again.status_code == 201
    assert again.json() == first.json()


def test_a_repeat_of_a_failed_message_fails_without_another_try(api: Api, alice: User) -> None:
    for _ in range(2):
        answer = api.send(alice, "fail", idempotency_key="k")
        assert_problem(answer, 502, "no-response")
    assert api.balance(alice) == 4000


def test_a_repeat_is_looked_up_before_the_balance(
    api: Api, alice: User, settings: Settings
) -> None:
    settings.MESSAGE_PRICE = 4000
    assert api.send(alice, "hello", idempotency_key="k").status_code == 201
    assert api.send(alice, "hello", idempotency_key="k").status_code == 201
    assert_problem(api.send(alice, "hello"), 402, "insufficient-tokens")


def test_a_send_that_was_not_accepted_binds_no_key(
    api: Api, alice: User, settings: Settings
) -> None:
    settings.MESSAGE_PRICE = 5000
    refused = api.send(alice, "hello", idempotency_key="k")
    assert_problem(refused, 402, "insufficient-tokens")
    settings.MESSAGE_PRICE = 100
    assert api.send(alice, "bye", idempotency_key="k").status_code == 201


@pytest.mark.parametrize("key", ["default", "!", "~" * 255, 'a,b;c="d"', "message:x", "0"])
def test_any_visible_ascii_is_a_key(api: Api, alice: User, key: str) -> None:
    for _ in range(2):
        assert api.send(alice, "hello", idempotency_key=key).status_code == 201
    assert api.balance(alice) == 3900


@pytest.mark.parametrize("key", [b"", b"a b", b"a\tb", b"x" * 256, b"\xfc", "schlüssel".encode()])
def test_anything_else_is_no_key(api: Api, alice: User, key: bytes) -> None:
    answer = api.call(
        "POST",
        "/send/",
        alice,
        json={"message": "hello"},
        headers={"Idempotency-Key": key},
    )
    problem = assert_problem(answer, 422, "invalid-input")
    assert places(problem) == [["header", "Idempotency-Key"]]
    assert api.balance(alice) == 4000
