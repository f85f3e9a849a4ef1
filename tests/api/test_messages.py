"""`GET /messages/{id}/`"""

from datetime import datetime
from uuid import uuid4

import pytest

from tests.api.client import Api, User, assert_problem


def test_it_shows_the_message_and_what_became_of_it(api: Api, alice: User) -> None:
    location = api.send(alice, "hello").headers["location"]
    message = api.get(location, alice).json()
    asked = datetime.fromisoformat(message.pop("created_at"))
    answered = datetime.fromisoformat(message.pop("responded_at"))
    assert asked <= answered
    assert message == {
        "id": location.split("/")[2],
        "conversation_id": message["conversation_id"],
        "message": "hello",
        "response": "Hi there! How can I help you today?",
        "status": "done",
        "cost": 100,
        "model": "scripted",
    }


def test_sends_go_into_one_default_conversation(api: Api, alice: User) -> None:
    conversations = {
        api.get(api.send(alice, text).headers["location"], alice).json()["conversation_id"]
        for text in ("hello", "bye")
    }
    assert len(conversations) == 1


def test_a_failed_message_says_so_and_has_cost_nothing(api: Api, alice: User) -> None:
    api.send(alice, "fail", idempotency_key="k")
    pending = api.send(alice, "fail", prefer="respond-async").headers["location"]
    while (message := api.get(pending, alice).json())["status"] == "pending":
        pass
    assert message["status"] == "failed"
    assert message["cost"] == 0
    assert message["response"] is None


def test_somebody_elses_message_is_as_one_that_does_not_exist(
    api: Api, alice: User, bob: User
) -> None:
    location = api.send(alice, "hello").headers["location"]
    nowhere = f"/messages/{uuid4()}/"
    documents = [
        assert_problem(api.get(path, bob), 404, "not-found") for path in (location, nowhere)
    ]
    for document in documents:
        del document["request_id"], document["instance"]
    assert documents[0] == documents[1]


@pytest.mark.parametrize("message_id", ["1", "x", "not-a-uuid", "%00", "..%2f", "' OR 1=1"])
def test_what_is_no_id_is_not_found(api: Api, alice: User, message_id: str) -> None:
    assert api.get(f"/messages/{message_id}/", alice).status_code == 404


def test_it_takes_a_jwt(api: Api) -> None:
    assert_problem(api.get(f"/messages/{uuid4()}/"), 401, "not-authenticated")
