"""`POST /send/`"""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from pytest_django import Settings

from tests.api.client import Api, User, assert_problem, places


@pytest.mark.parametrize(
    ("message", "response"),
    [
        ("hello", "Hi there! How can I help you today?"),
        ("HELLO", "Hi there! How can I help you today?"),
        ("How are you?", "I'm just a bot, but I'm here to assist you! How can I help?"),
        ("what's your name?", "I'm ChatBot, your virtual assistant."),
        (
            "Tell me a joke",
            "Why don't scientists trust atoms? Because they make up everything!",
        ),
        ("bye", "Goodbye! Have a great day!"),
        ("hello ", "I'm not sure how to respond to that. Can you please ask something else?"),
    ],
)
def test_the_bot_responds_as_ever(api: Api, alice: User, message: str, response: str) -> None:
    answer = api.send(alice, message)
    assert answer.status_code == 201
    assert answer.json() == {"response": response}
    assert api.balance(alice) == 3900


def test_the_message_can_be_found_at_its_location(api: Api, alice: User) -> None:
    answer = api.send(alice, "hello")
    message = api.get(answer.headers["location"], alice).json()
    assert message["status"] == "done"
    assert message["response"] == answer.json()["response"]


def test_a_balance_that_is_too_small_is_left_alone(
    api: Api, alice: User, settings: Settings
) -> None:
    settings.MESSAGE_PRICE = 3000
    assert api.send(alice, "hello").status_code == 201
    problem = assert_problem(api.send(alice, "hello"), 402, "insufficient-tokens")
    assert problem["detail"] == "A message costs 3000 tokens, the balance is 1000."
    assert api.balance(alice) == 1000


def test_no_more_is_accepted_than_the_balance_pays_for(
    api: Api, alice: User, settings: Settings
) -> None:
    settings.MESSAGE_PRICE = 500
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: api.send(alice, "hello").status_code, range(20)))
    assert sorted(answers) == [201] * 8 + [402] * 12
    assert api.balance(alice) == 0


def test_a_message_without_a_response_is_refunded(api: Api, alice: User) -> None:
    answer = api.send(alice, "fail")
    problem = assert_problem(answer, 502, "no-response")
    assert re.search(r"message [0-9a-f-]{36} \(responder\)", problem["detail"])
    assert "refunded" in problem["detail"]
    assert api.balance(alice) == 4000


def test_a_client_that_hangs_up_loses_nothing(api: Api, alice: User, held: threading.Event) -> None:
    with pytest.raises(httpx.ReadTimeout):
        api.post(
            "/send/",
            {"message": "hold the line"},
            alice,
            headers={"Idempotency-Key": "hung-up"},
            timeout=0.5,
        )
    held.set()
    again = api.post(
        "/send/", {"message": "hold the line"}, alice, headers={"Idempotency-Key": "hung-up"}
    )
    assert again.status_code == 201
    assert api.balance(alice) == 3900


@pytest.mark.parametrize(
    "message",
    [
        "x" * 8_000,
        "\U0001f600" * 8_000,
        " ",
        "\n\t\x01",
        "<script>alert(1)</script>",
        "'; DELETE FROM eventstore_event; --",
        "é\u202e\u200d",
        "[erased]",
    ],
)
def test_any_text_is_kept_as_it_is(api: Api, alice: User, message: str) -> None:
    location = api.send(alice, message).headers["location"]
    assert api.get(location, alice).json()["message"] == message


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, ["body", "message"]),
        ({"message": ""}, ["body", "message"]),
        ({"message": "x" * 8_001}, ["body", "message"]),
        ({"message": "\U0001f600" * 8_001}, ["body", "message"]),
        ({"message": None}, ["body", "message"]),
        ({"message": 7}, ["body", "message"]),
        ({"message": ["hello"]}, ["body", "message"]),
        ({"message": {"text": "hello"}}, ["body", "message"]),
        ({"message": "a\0b"}, ["body", "message"]),
        ({"message": "hello", "tokens": 0}, ["body", "tokens"]),
        ({"Message": "hello"}, ["body", "Message"]),
        ({"message": "hello", "user_id": "x", "price": 0}, ["body", "price"]),
        ([{"message": "hello"}], ["body"]),
        ("hello", ["body"]),
        (None, ["body"]),
    ],
)
def test_a_body_that_breaks_a_rule_costs_nothing(
    api: Api, alice: User, body: Any, place: list[str]
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = api.call("POST", "/send/", alice, content=json.dumps(body), headers=headers)
    assert place in places(assert_problem(answer, 422, "invalid-input"))
    assert api.balance(alice) == 4000


def test_it_takes_a_jwt(api: Api) -> None:
    assert_problem(api.post("/send/", {"message": "hello"}), 401, "not-authenticated")


def test_a_price_by_usage_is_told_as_what_it_is(api: Api, alice: User, settings: Settings) -> None:
    settings.PRICING = "usage"
    settings.PROMPT_PRICE_PER_1000 = 1000
    detail = assert_problem(api.send(alice, "hello"), 402, "insufficient-tokens")["detail"]
    assert detail == "A message may cost up to 8000 tokens, the balance is 4000."
