"""The five endpoints, end to end, in both profiles, as the contract's section 2 says."""

from collections.abc import Iterator
from uuid import UUID

import httpx
import pytest

from tests.stack.client import OPTIONS, PASSWORD
from tests.stack.services import Service

ANSWERS = {
    "hello": "Hi there! How can I help you today?",
    "How Are You?": "I'm just a bot, but I'm here to assist you! How can I help?",
    "what's your name?": "I'm ChatBot, your virtual assistant.",
    "tell me a joke": "Why don't scientists trust atoms? Because they make up everything!",
    "BYE": "Goodbye! Have a great day!",
    "hello there": "I'm not sure how to respond to that. Can you please ask something else?",
}


@pytest.fixture
def api(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, **OPTIONS) as client:
        yield client


def test_the_five_endpoints_answer_as_promised(service: Service, api: httpx.Client) -> None:
    credentials = {"username": "Alice", "password": PASSWORD}

    registered = api.post("/users/register/", json=credentials)
    assert registered.status_code == 201
    user_id = registered.json()["id"]
    assert str(UUID(user_id)) == user_id
    assert registered.json() == {"id": user_id, "username": "Alice", "tokens": 4000}

    again = api.post("/users/register/", json={**credentials, "username": "aLICE"})
    assert (again.status_code, again.headers["content-type"]) == (409, "application/problem+json")

    wrong = api.post("/users/login/", json={**credentials, "password": "not the one"})
    nobody = api.post("/users/login/", json={**credentials, "username": "nobody"})
    assert wrong.status_code == nobody.status_code == 401
    without_id = [{**each.json(), "request_id": ""} for each in (wrong, nobody)]
    assert without_id[0] == without_id[1]

    logged_in = api.post("/users/login/", json=credentials)
    assert logged_in.status_code == 200
    assert set(logged_in.json()) == {"token", "expires_in"}
    assert logged_in.json()["expires_in"] == 3600
    headers = {"Authorization": f"Bearer {logged_in.json()['token']}"}

    users = api.get("/users/", headers=headers)
    assert users.status_code == 200
    (alice,) = [each for each in users.json() if each["id"] == user_id]
    assert set(alice) == {"id", "username", "created_at"}
    assert alice["username"] == "Alice"

    for number, (message, response) in enumerate(ANSWERS.items(), 1):
        sent = api.post("/send/", json={"message": message}, headers=headers)
        assert (sent.status_code, sent.json()) == (201, {"response": response})
        assert sent.headers["location"].startswith("/messages/")
        balance = api.get("/token/", headers=headers)
        assert (balance.status_code, balance.json()) == (200, {"tokens": 4000 - 100 * number})

    for path in ("/users/", "/token/"):
        refused = api.get(path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert api.post("/send/", json={"message": "hello"}).status_code == 401
    empty = api.post("/send/", json={"message": ""}, headers=headers)
    assert empty.status_code == 422

    ledger = service.at_rest()
    assert len(ledger.messages_of(user_id)) == len(ANSWERS)


@pytest.mark.parametrize("prefer", ["respond-async", "wait=0"])
def test_a_send_that_is_not_waited_for_is_answered_later(service: Service, prefer: str) -> None:
    user = service.user(f"later-{prefer.replace('=', '.')}")
    sent = user.send("hello", prefer=prefer)
    assert sent.status_code == 202
    assert sent.json() == {"id": sent.json()["id"], "status": "pending"}
    assert sent.headers["location"] == f"/messages/{sent.json()['id']}/"
    service.at_rest()
    message = user.message(sent.json()["id"])
    assert message["status"] == "done"
    assert message["response"] == ANSWERS["hello"]
    assert (message["cost"], message["model"]) == (100, "dummy")
    other = service.user(f"other-{prefer.replace('=', '.')}")
    assert other.get(f"/messages/{message['id']}/").status_code == 404
