"""`POST /users/{id}/deactivate/` and `POST /users/{id}/activate/`"""

import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from eventstore.keys import decrypt_all
from eventstore.reading import max_position, read_events
from tests.api.client import PASSWORD, Api, User, assert_problem, places

VERBS = ["deactivate", "activate"]


def do(api: Api, verb: str, staff: User, user_id: str, body: Any = None) -> httpx.Response:
    return api.post(f"/users/{user_id}/{verb}/", body, staff)


def deactivate(api: Api, staff: User, user: User) -> None:
    answer = do(api, "deactivate", staff, user.id)
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_deactivated_user_is_out_at_the_next_request(api: Api, staff: User, alice: User) -> None:
    assert api.get("/token/", alice).status_code == 200
    deactivate(api, staff, alice)
    for answer in (api.get("/token/", alice), api.send(alice, "hello")):
        assert_problem(answer, 401, "not-authenticated")
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_the_login_says_the_same_as_to_a_wrong_password(
    api: Api, staff: User, alice: User, bob: User
) -> None:
    deactivate(api, staff, alice)
    said = []
    for name, password in ((alice.username, PASSWORD), (bob.username, "a guess")):
        answer = api.post("/users/login/", {"username": name, "password": password})
        problem = assert_problem(answer, 401, "wrong-credentials")
        said.append(problem | {"request_id": ""})
    assert said[0] == said[1]


def test_an_activated_user_logs_in_again_and_old_jwts_stay_void(
    api: Api, staff: User, alice: User
) -> None:
    deactivate(api, staff, alice)
    assert do(api, "activate", staff, alice.id).status_code == 204
    assert_problem(api.get("/token/", alice), 401, "not-authenticated")
    again = api.log_in(alice.id, alice.username)
    assert api.send(again, "hello").status_code == 201
    assert api.balance(again) == 3900


def test_what_is_pending_is_finished_and_charged(
    api: Api, staff: User, alice: User, held: threading.Event
) -> None:
    api.send(alice, "hold it", idempotency_key="k", prefer="respond-async")
    deactivate(api, staff, alice)
    held.set()
    do(api, "activate", staff, alice.id)
    again = api.log_in(alice.id, alice.username)
    assert api.send(again, "hold it", idempotency_key="k").status_code == 201
    assert api.balance(again) == 3900


@pytest.mark.parametrize("verb", VERBS)
def test_nobody_is_not_found(api: Api, staff: User, verb: str) -> None:
    before = max_position()
    assert_problem(do(api, verb, staff, str(uuid4())), 404, "not-found")
    assert max_position() == before


@pytest.mark.parametrize("verb", VERBS)
def test_a_repeat_succeeds_and_appends_nothing(
    api: Api, staff: User, alice: User, verb: str
) -> None:
    do(api, verb, staff, alice.id)
    before = max_position()
    assert do(api, verb, staff, alice.id).status_code == 204
    assert max_position() == before


def test_a_reason_is_kept_with_who_gave_it(api: Api, staff: User, alice: User) -> None:
    before = max_position()
    for verb in VERBS:
        assert do(api, verb, staff, alice.id, {"reason": f"to {verb}"}).status_code == 204
    events = [event for event in read_events(before) if str(event.stream_id) == alice.id]
    assert [event.topic.rpartition(".")[2] for event in events] == [
        "UserDeactivated",
        "UserActivated",
    ]
    assert {event.actor for event in events} == {f"staff:{staff.id}"}
    assert decrypt_all([event.data["reason"] for event in events]) == [
        "to deactivate",
        "to activate",
    ]


@pytest.mark.parametrize("body", [{}, {"reason": None}])
def test_a_reason_may_be_left_out(api: Api, staff: User, alice: User, body: Any) -> None:
    for verb in VERBS:
        assert do(api, verb, staff, alice.id, body).status_code == 204


@pytest.mark.parametrize("reason", ["", "x" * 501, "a\0b", 5])
def test_no_other_reason_is_taken(api: Api, staff: User, alice: User, reason: Any) -> None:
    for verb in VERBS:
        answer = do(api, verb, staff, alice.id, {"reason": reason})
        assert places(assert_problem(answer, 422, "invalid-input")) == [["body", "reason"]]
    assert api.get("/token/", alice).status_code == 200


@pytest.mark.parametrize(
    ("content", "content_type", "status", "slug"),
    [
        (b"null", "application/json", 422, "invalid-input"),
        (b'{"why": "x"}', "application/json", 422, "invalid-input"),
        (b"{", "application/json", 400, "malformed-json"),
        (b"{}", "text/plain", 415, "not-json"),
        (b" " * 131_073, "application/json", 413, "body-too-large"),
    ],
)
def test_a_body_that_is_there_is_read_as_strictly_as_any(
    api: Api, staff: User, alice: User, content: bytes, content_type: str, status: int, slug: str
) -> None:
    answer = api.call(
        "POST",
        f"/users/{alice.id}/deactivate/",
        staff,
        content=content,
        headers={"Content-Type": content_type},
    )
    assert_problem(answer, status, slug)
    assert api.get("/token/", alice).status_code == 200


def test_staff_may_be_deactivated_and_is_staff_again_afterwards(
    api: Api, make_staff: Callable[[], User]
) -> None:
    ann, ben = make_staff(), make_staff()
    deactivate(api, ann, ben)
    assert_problem(do(api, "activate", ben, ben.id), 401, "not-authenticated")
    assert do(api, "activate", ann, ben.id).status_code == 204
    again = api.log_in(ben.id, ben.username)
    assert api.get("/users/me/", again).json()["role"] == "staff"
