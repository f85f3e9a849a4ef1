"""`GET`, `PATCH` and `DELETE /conversations/{id}/`"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.api.client import Api, User, assert_problem, places
from tests.api.test_conversations import ids, start

TITLE = {"title": "Good jokes"}
LOOKS_MAX = 1000
METHODS = ["GET", "PATCH", "DELETE"]


def call(api: Api, method: str, conversation_id: str, user: User | None) -> httpx.Response:
    body: dict[str, Any] = {"json": TITLE} if method == "PATCH" else {}
    return api.call(method, f"/conversations/{conversation_id}/", user, **body)


def delete(api: Api, user: User, conversation_id: str) -> None:
    answer = call(api, "DELETE", conversation_id, user)
    assert (answer.status_code, answer.content) == (204, b"")


def send(api: Api, user: User, conversation_id: str, message: str, **headers: str) -> str:
    """Send a message into a conversation and return its address."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    path = f"/conversations/{conversation_id}/messages/"
    answer = api.post(path, {"message": message}, user, headers=named)
    assert answer.is_success, answer.text
    return answer.headers["location"]


def test_it_is_shown_to_whom_it_belongs(api: Api, alice: User) -> None:
    conversation_id = start(api, alice, "Jokes")
    conversation = call(api, "GET", conversation_id, alice).json()
    assert conversation == {
        "id": conversation_id,
        "title": "Jokes",
        "created_at": conversation["created_at"],
    }


def test_a_rename_is_shown_at_once_and_changes_nothing_else(api: Api, alice: User) -> None:
    first, second = start(api, alice, "Jokes"), start(api, alice)
    before = call(api, "GET", first, alice).json()
    answer = call(api, "PATCH", first, alice)
    assert answer.status_code == 200
    assert answer.json() == before | TITLE
    assert call(api, "GET", first, alice).json() == answer.json()
    assert ids(api, alice) == [second, first]


@pytest.mark.parametrize("body", [{}, {"title": None}])
def test_a_rename_names_a_title(api: Api, alice: User, body: dict[str, Any]) -> None:
    path = f"/conversations/{start(api, alice, 'Jokes')}/"
    answer = api.call("PATCH", path, alice, json=body)
    assert places(assert_problem(answer, 422, "invalid-input")) == [["body", "title"]]
    assert api.get(path, alice).json()["title"] == "Jokes"


def test_a_deleted_conversation_is_gone_with_its_messages(api: Api, alice: User) -> None:
    conversation_id, other = start(api, alice), start(api, alice)
    message = send(api, alice, conversation_id, "hello")
    assert api.get(message, alice).status_code == 200
    delete(api, alice, conversation_id)
    for method in METHODS:
        assert_problem(call(api, method, conversation_id, alice), 404, "not-found")
    path = f"/conversations/{conversation_id}/messages/"
    assert_problem(api.get(path, alice), 404, "not-found")
    assert_problem(api.post(path, {"message": "hello"}, alice), 404, "not-found")
    assert_problem(api.get(message, alice), 404, "not-found")
    assert ids(api, alice) == [other]
    assert api.balance(alice) == 3900


def test_a_deleted_default_conversation_is_replaced_at_the_next_send(api: Api, alice: User) -> None:
    api.send(alice, "hello")
    (first,) = ids(api, alice)
    delete(api, alice, first)
    assert ids(api, alice) == []
    message = api.get(api.send(alice, "bye").headers["location"], alice).json()
    assert ids(api, alice) == [message["conversation_id"]] != [first]
    assert message["response"] == "Goodbye! Have a great day!"


def test_a_deletion_cancels_what_is_pending_and_refunds_it(
    api: Api, alice: User, held: threading.Event
) -> None:
    conversation_id = start(api, alice)
    messages = [send(api, alice, conversation_id, "hold", prefer="respond-async") for _ in range(3)]
    assert api.balance(alice) == 3700
    delete(api, alice, conversation_id)
    assert api.balance(alice) == 4000
    held.set()
    for message in messages:
        assert_problem(api.get(message, alice), 404, "not-found")
    assert api.balance(alice) == 4000


def test_whoever_waits_for_a_response_hears_that_the_conversation_is_gone(
    api: Api, alice: User, held: threading.Event
) -> None:
    conversation_id = start(api, alice)
    path = f"/conversations/{conversation_id}/messages/"
    with ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(api.post, path, {"message": "hold"}, alice)
        assert any(api.balance(alice) == 3900 for _ in range(LOOKS_MAX))
        delete(api, alice, conversation_id)
        assert_problem(waiting.result(), 404, "not-found")
    assert api.balance(alice) == 4000


def test_a_repeat_of_a_send_into_a_deleted_conversation_is_not_found(api: Api, alice: User) -> None:
    conversation_id = start(api, alice)
    send(api, alice, conversation_id, "hello", idempotency_key="k")
    delete(api, alice, conversation_id)
    path = f"/conversations/{conversation_id}/messages/"
    again = api.post(path, {"message": "hello"}, alice, headers={"Idempotency-Key": "k"})
    assert_problem(again, 404, "not-found")
    assert api.balance(alice) == 3900


def test_sends_beside_a_deletion_are_cancelled_or_refused(api: Api, alice: User) -> None:
    conversation_id = start(api, alice)
    path = f"/conversations/{conversation_id}/messages/"

    def send_one(_: int) -> int:
        return api.post(path, {"message": "hello"}, alice).status_code

    with ThreadPoolExecutor(8) as clients:
        sending = [clients.submit(send_one, number) for number in range(24)]
        sending[2].result()
        delete(api, alice, conversation_id)
        statuses = {sent.result() for sent in sending}
    assert statuses <= {201, 404}
    balance = api.balance(alice)
    assert balance % 100 == 0
    assert api.get("/conversations/", alice).json() == []
    assert api.post(path, {"message": "hello"}, alice).status_code == 404
    assert api.balance(alice) == balance


@pytest.mark.parametrize("method", METHODS)
def test_somebody_elses_conversation_is_as_one_that_does_not_exist(
    api: Api, alice: User, bob: User, method: str
) -> None:
    alices = start(api, alice, "Jokes")
    before = call(api, "GET", alices, alice).json()
    documents = [
        assert_problem(call(api, method, conversation_id, bob), 404, "not-found")
        for conversation_id in (alices, str(uuid4()))
    ]
    for document in documents:
        del document["request_id"], document["instance"]
    assert documents[0] == documents[1]
    assert call(api, "GET", alices, alice).json() == before


@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_id_is_not_found(api: Api, alice: User, method: str) -> None:
    for conversation_id in ("1", "x", "%00", "' OR 1=1"):
        assert call(api, method, conversation_id, alice).status_code == 404


@pytest.mark.parametrize("method", METHODS)
def test_it_takes_a_jwt(api: Api, method: str) -> None:
    assert_problem(call(api, method, str(uuid4()), None), 401, "not-authenticated")


def test_of_two_deletions_at_once_one_finds_it(api: Api, make_user: Callable[[], User]) -> None:
    alice = make_user()
    conversation_id = start(api, alice)
    with ThreadPoolExecutor(4) as clients:
        answers = clients.map(lambda _: call(api, "DELETE", conversation_id, alice), range(4))
        assert sorted(answer.status_code for answer in answers) == [204, 404, 404, 404]
