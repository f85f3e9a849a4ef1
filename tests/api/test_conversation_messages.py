"""`POST /conversations/{id}/messages/`"""

import threading
from uuid import uuid4

from tests.api.client import Api, User, assert_problem


def started(api: Api, user: User) -> str:
    conversation_id: str = api.post("/conversations/", {}, user).json()["id"]
    return conversation_id


def test_a_message_goes_where_it_is_sent(api: Api, alice: User) -> None:
    conversation_id = started(api, alice)
    path = f"/conversations/{conversation_id}/messages/"
    answer = api.post(path, {"message": "hello"}, alice)
    assert (answer.status_code, answer.json()) == (
        201,
        {"response": "Hi there! How can I help you today?"},
    )
    (message,) = api.get(path, alice).json()
    assert message["conversation_id"] == conversation_id
    assert answer.headers["location"] == f"/messages/{message['id']}/"


def test_preferences_hold_here_too(api: Api, alice: User, held: threading.Event) -> None:
    path = f"/conversations/{started(api, alice)}/messages/"
    answer = api.post(path, {"message": "hold it"}, alice, headers={"Prefer": "respond-async"})
    assert (answer.status_code, answer.json()["status"]) == (202, "pending")


def test_one_conversation_is_nobody_elses(api: Api, alice: User, bob: User) -> None:
    for conversation_id in (started(api, alice), str(uuid4())):
        path = f"/conversations/{conversation_id}/messages/"
        assert_problem(api.post(path, {"message": "hello"}, bob), 404, "not-found")
    assert api.balance(bob) == 4000


def test_a_deleted_conversation_takes_no_message(api: Api, alice: User) -> None:
    conversation_id = started(api, alice)
    path = f"/conversations/{conversation_id}/messages/"
    key = {"Idempotency-Key": "k"}
    assert api.post(path, {"message": "hello"}, alice, headers=key).status_code == 201
    assert api.call("DELETE", f"/conversations/{conversation_id}/", alice).status_code == 204
    assert_problem(api.post(path, {"message": "hello"}, alice), 404, "not-found")
    # A repeat finds its message, and that the conversation is gone.
    assert_problem(api.post(path, {"message": "hello"}, alice, headers=key), 404, "not-found")
    assert api.balance(alice) == 3900


def test_a_key_belongs_to_one_conversation(api: Api, alice: User) -> None:
    first, second = started(api, alice), started(api, alice)
    key, body = {"Idempotency-Key": "k"}, {"message": "hello"}
    path = f"/conversations/{first}/messages/"
    sent = api.post(path, body, alice, headers=key)
    assert api.post(path, body, alice, headers=key).headers["location"] == sent.headers["location"]
    for other in (f"/conversations/{second}/messages/", "/send/"):
        answer = api.post(other, body, alice, headers=key)
        assert_problem(answer, 422, "idempotency-key-reused")
    assert api.balance(alice) == 3900


def test_the_default_conversation_is_the_one_that_send_uses(api: Api, alice: User) -> None:
    key = {"idempotency_key": "k"}
    sent = api.send(alice, "hello", **key)
    conversation_id = api.get(sent.headers["location"], alice).json()["conversation_id"]
    path = f"/conversations/{conversation_id}/messages/"
    again = api.post(path, {"message": "hello"}, alice, headers={"Idempotency-Key": "k"})
    assert again.headers["location"] == sent.headers["location"]
    assert api.call("DELETE", f"/conversations/{conversation_id}/", alice).status_code == 204
    assert_problem(api.send(alice, "hello", **key), 404, "not-found")
    renewed = api.get(api.send(alice, "hello").headers["location"], alice).json()
    assert renewed["conversation_id"] != conversation_id
    assert_problem(api.get(path, alice), 404, "not-found")
