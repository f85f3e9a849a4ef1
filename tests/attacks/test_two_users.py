"""Nobody sees, changes or infers anything of another user's: every route, with two users."""

import json
import re
from typing import Any
from uuid import uuid4

import pytest

from config.docs import openapi_text
from tests.api.client import Api, User, assert_problem

#: A body with which each operation that wants one would get through.
BODIES: dict[str, Any] = {
    "rename_conversation": {"title": "mine now"},
    "send_message_to_conversation": {"message": "hello"},
}
SECRET = "a secret of alice's"


def routes() -> list[tuple[str, str, str]]:
    """Every operation on one thing of a user's own: its id, method and path."""
    return [
        (operation["operationId"], method.upper(), path)
        for path, methods in json.loads(openapi_text())["paths"].items()
        for method, operation in methods.items()
        if "{" in path and not {"staff", "audit"} & set(operation["tags"])
    ]


@pytest.fixture(scope="module")
def alices(api: Api, alice: User) -> dict[str, str]:
    """The ids of a conversation and a message of alice's."""
    started = api.post("/conversations/", {"title": SECRET}, alice).json()["id"]
    sent = api.post(f"/conversations/{started}/messages/", {"message": SECRET}, alice)
    return {"conversation_id": started, "message_id": sent.headers["location"].split("/")[2]}


def everything(api: Api, user: User) -> list[Any]:
    """What a user sees of their own."""
    export = api.get("/users/me/export/", user).json()
    return [export[name] for name in ("user", "conversations", "messages", "events")]


def test_there_are_routes_to_try() -> None:
    assert len(routes()) >= 8


@pytest.mark.parametrize(("operation", "method", "path"), routes(), ids=lambda each: each)
def test_what_is_somebody_elses_is_not_there(
    api: Api,
    alice: User,
    bob: User,
    alices: dict[str, str],
    operation: str,
    method: str,
    path: str,
) -> None:
    before, balance = everything(api, alice), api.balance(bob)
    documents = []
    for ids in (alices, {name: str(uuid4()) for name in alices}):
        answer = api.call(method, path.format(**ids), bob, json=BODIES.get(operation))
        document = assert_problem(answer, 404, "not-found")
        assert SECRET not in answer.text
        headers = {name for name in answer.headers if name != "date"}
        documents.append((document | {"request_id": "", "instance": ""}, headers))
    # Not even whether there is such a thing can be told from the answer.
    assert documents[0] == documents[1]
    assert everything(api, alice) == before
    assert api.balance(bob) == balance


def test_a_page_that_begins_at_somebody_elses_is_refused_like_one_that_begins_nowhere(
    api: Api, bob: User, alices: dict[str, str]
) -> None:
    own = api.post("/conversations/", {}, bob).json()["id"]
    for path, mine in (
        ("/conversations/?after=", alices["conversation_id"]),
        (f"/conversations/{own}/messages/?after=", alices["message_id"]),
        (f"/conversations/{own}/messages/?before=", alices["message_id"]),
    ):
        answers = [api.get(f"{path}{each}", bob) for each in (mine, uuid4())]
        first, second = (assert_problem(answer, 422, "invalid-input") for answer in answers)
        assert first["errors"] == second["errors"]


def test_a_key_of_somebody_elses_is_another_key(api: Api, alice: User, bob: User) -> None:
    key = f"shared-{uuid4()}"
    mine = api.send(alice, SECRET, idempotency_key=key)
    theirs = api.send(bob, "hello", idempotency_key=key)
    assert (mine.status_code, theirs.status_code) == (201, 201)
    assert mine.headers["location"] != theirs.headers["location"]


def test_lists_hold_nothing_of_anybody_elses(
    api: Api, alice: User, bob: User, alices: dict[str, str]
) -> None:
    for path in ("/conversations/", "/token/statement/", "/users/me/", "/users/me/export/"):
        text = api.get(path, bob).text
        assert not re.search("|".join((SECRET, alice.id, *alices.values())), text)
    shown = [user for user in api.get("/users/?limit=1000", bob).json() if user["id"] == alice.id]
    assert [each.keys() for each in shown] == [{"id", "username", "created_at"}]


def test_the_model_is_the_operators_choice_alone(api: Api, alice: User) -> None:
    for name in ("base_url", "model", "api_key", "OPENAI_BASE_URL", "responder"):
        answer = api.post("/send/", {"message": "hello", name: "http://127.0.0.1:1/"}, alice)
        assert assert_problem(answer, 422, "invalid-input")["errors"][0]["loc"] == ["body", name]
