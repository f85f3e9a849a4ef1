"""`GET` and `POST /conversations/`"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.api.client import Api, User, assert_problem, places


def start(api: Api, user: User, title: str | None = None) -> str:
    answer = api.post("/conversations/", {"title": title}, user)
    assert answer.status_code == 201, answer.text
    conversation_id: str = answer.json()["id"]
    return conversation_id


def ids(api: Api, user: User) -> list[str]:
    return [conversation["id"] for conversation in api.get("/conversations/", user).json()]


# POST


def test_a_conversation_is_started_with_its_title(api: Api, alice: User) -> None:
    answer = api.post("/conversations/", {"title": "Jokes"}, alice)
    assert answer.status_code == 201
    conversation = answer.json()
    assert conversation.keys() == {"id", "title", "created_at"}
    assert conversation["title"] == "Jokes"
    assert datetime.fromisoformat(conversation["created_at"]).utcoffset() == timedelta(0)
    path = answer.headers["location"]
    assert path == f"/conversations/{UUID(conversation['id'])}/"
    assert api.get(path, alice).json() == conversation
    assert api.get("/conversations/", alice).json() == [conversation]


@pytest.mark.parametrize("body", [{}, {"title": None}])
def test_it_needs_no_title(api: Api, alice: User, body: dict[str, Any]) -> None:
    answer = api.post("/conversations/", body, alice)
    assert answer.status_code == 201
    assert answer.json()["title"] is None
    assert api.get(answer.headers["location"], alice).json()["title"] is None


@pytest.mark.parametrize("title", ["x", " ", "ü" * 200, "🦉" * 200, '"<b>\\', "a\nb"])
def test_titles_come_back_as_they_were(api: Api, alice: User, title: str) -> None:
    assert api.get(f"/conversations/{start(api, alice, title)}/", alice).json()["title"] == title


@pytest.mark.parametrize("title", ["", "x" * 201, "🦉" * 201, 7, True, ["x"], {}, "a\0b"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_title_that_breaks_a_rule_is_refused(
    api: Api, alice: User, title: object, method: str
) -> None:
    path = "/conversations/"
    if method == "PATCH":
        path += f"{start(api, alice)}/"
    before = api.get("/conversations/", alice).json()
    answer = api.call(method, path, alice, json={"title": title})
    assert places(assert_problem(answer, 422, "invalid-input")) == [["body", "title"]]
    assert api.get("/conversations/", alice).json() == before


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_half_a_surrogate_pair_is_no_title(api: Api, alice: User, method: str) -> None:
    path = "/conversations/" + (f"{start(api, alice)}/" if method == "PATCH" else "")
    headers = {"Content-Type": "application/json"}
    answer = api.call(method, path, alice, content=rb'{"title": "\ud800"}', headers=headers)
    assert places(assert_problem(answer, 422, "invalid-input")) == [["body", "title"]]


def test_a_field_that_nobody_knows_is_refused(api: Api, alice: User) -> None:
    answer = api.post("/conversations/", {"title": "x", "id": str(uuid4())}, alice)
    assert places(assert_problem(answer, 422, "invalid-input")) == [["body", "id"]]


def test_a_body_that_is_no_object_is_refused(api: Api, alice: User) -> None:
    answer = api.post("/conversations/", ["x"], alice)
    assert places(assert_problem(answer, 422, "invalid-input")) == [["body"]]


# GET


def test_a_new_user_has_no_conversation(api: Api, alice: User) -> None:
    answer = api.get("/conversations/", alice)
    assert answer.json() == []
    assert "link" not in answer.headers


def test_the_default_conversation_appears_with_the_first_message(api: Api, alice: User) -> None:
    location = api.send(alice, "hello").headers["location"]
    (conversation,) = api.get("/conversations/", alice).json()
    assert conversation["id"] == api.get(location, alice).json()["conversation_id"]
    assert conversation["title"] is None


def test_the_most_recently_active_one_comes_first(api: Api, alice: User) -> None:
    first, second, third = (start(api, alice, title) for title in ("1", "2", "3"))
    assert ids(api, alice) == [third, second, first]
    api.post(f"/conversations/{first}/messages/", {"message": "hello"}, alice)
    assert ids(api, alice) == [first, third, second]


def test_everybody_sees_their_own_ones(api: Api, alice: User, bob: User) -> None:
    start(api, alice)
    bobs = start(api, bob)
    assert ids(api, bob) == [bobs]


def test_pages_follow_their_links_to_the_end(api: Api, alice: User) -> None:
    started = [start(api, alice) for _ in range(6)]
    found, path, pages = [], "/conversations/?limit=2", 0
    while path:
        page = api.get(path, alice)
        assert len(page.json()) == 2
        found += [conversation["id"] for conversation in page.json()]
        path = page.links.get("next", {}).get("url", "")
        pages += 1
        assert pages <= 3
    assert found == started[::-1]


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "ten", ""])
def test_a_limit_that_makes_no_sense_is_refused(api: Api, alice: User, limit: str) -> None:
    answer = api.get("/conversations/", alice, params={"limit": limit})
    assert places(assert_problem(answer, 422, "invalid-input")) == [["query", "limit"]]


@pytest.mark.parametrize("after", ["1", "", "\0", "not-a-uuid"])
def test_an_after_that_is_no_id_is_refused(api: Api, alice: User, after: str) -> None:
    answer = api.get("/conversations/", alice, params={"after": after})
    assert places(assert_problem(answer, 422, "invalid-input")) == [["query", "after"]]


def test_an_after_that_is_not_in_the_list_is_refused(api: Api, alice: User, bob: User) -> None:
    bobs, deleted = start(api, bob), start(api, alice)
    api.call("DELETE", f"/conversations/{deleted}/", alice)
    for after in (str(uuid4()), bobs, deleted):
        answer = api.get(f"/conversations/?after={after}", alice)
        assert places(assert_problem(answer, 422, "invalid-input")) == [["query", "after"]]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_it_takes_a_jwt(api: Api, method: str) -> None:
    answer = api.call(method, "/conversations/")
    assert_problem(answer, 401, "not-authenticated")
