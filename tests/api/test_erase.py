"""`DELETE /users/me/` and `DELETE /users/{id}/`"""

import threading
import time
from typing import Any
from uuid import uuid4

import pytest

from accounts.passwords import is_password
from privacy import erasure
from tests.api.client import PASSWORD, Api, User, assert_problem, places


def erase(api: Api, user: User, password: Any = PASSWORD) -> Any:
    return api.call("DELETE", "/users/me/", user, json={"password": password})


def test_at_the_next_request_they_are_gone(api: Api, alice: User, bob: User) -> None:
    api.send(alice, "hello")
    answer = erase(api, alice)
    assert (answer.status_code, answer.content) == (204, b"")
    for path in ("/token/", "/users/me/", "/users/me/export/", "/conversations/"):
        assert_problem(api.get(path, alice), 401, "not-authenticated")
    assert_problem(api.send(alice, "hello"), 401, "not-authenticated")
    credentials = {"username": alice.username, "password": PASSWORD}
    assert_problem(api.post("/users/login/", credentials), 401, "wrong-credentials")
    listed = api.get("/users/?limit=1000", bob).json()
    assert alice.id not in {user["id"] for user in listed}
    assert bob.id in {user["id"] for user in listed}


def test_the_name_is_never_given_out_again(api: Api, alice: User) -> None:
    erase(api, alice)
    again = {"username": alice.username.upper(), "password": PASSWORD}
    assert_problem(api.post("/users/register/", again), 409, "username-taken")


def test_a_wrong_password_erases_nobody(api: Api, alice: User) -> None:
    problem = assert_problem(erase(api, alice, "a guess"), 422, "wrong-password")
    assert places(problem) == [["body", "password"]]
    assert api.balance(alice) == 4000


@pytest.mark.parametrize("body", [None, {}, {"password": 1}, {"password": PASSWORD, "really": 1}])
def test_a_body_that_does_not_fit_erases_nobody(api: Api, alice: User, body: Any) -> None:
    request = {} if body is None else {"json": body}
    assert api.call("DELETE", "/users/me/", alice, **request).status_code in (415, 422)
    assert api.balance(alice) == 4000


def test_it_takes_a_jwt(api: Api) -> None:
    answer = api.call("DELETE", "/users/me/", json={"password": PASSWORD})
    assert_problem(answer, 401, "not-authenticated")


def test_whoever_waits_for_a_message_then_is_told(
    api: Api, alice: User, held: threading.Event
) -> None:
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(api.send(alice, "hold on")))
    waiting.start()
    until = time.monotonic() + 20
    while not api.get("/conversations/", alice).json() and time.monotonic() < until:
        time.sleep(0.05)
    assert erase(api, alice).status_code == 204
    waiting.join(20)
    (answer,) = answers
    assert_problem(answer, 404, "not-found")
    held.set()


def test_staff_erase_whoever_asks_them_to(api: Api, alice: User, staff: User) -> None:
    assert api.call("DELETE", f"/users/{alice.id}/", staff).status_code == 204
    assert_problem(api.get("/token/", alice), 401, "not-authenticated")
    for gone in (alice.id, uuid4()):
        assert_problem(api.call("DELETE", f"/users/{gone}/", staff), 404, "not-found")
        gift = {"amount": 5, "reason": "x"}
        assert_problem(api.post(f"/users/{gone}/grants/", gift, staff), 404, "not-found")
        assert_problem(api.post(f"/users/{gone}/activate/", None, staff), 404, "not-found")


def test_staff_do_not_erase_themselves_without_their_password(api: Api, staff: User) -> None:
    assert_problem(api.call("DELETE", f"/users/{staff.id}/", staff), 403, "own-account")
    assert api.balance(staff) == 4000
    assert erase(api, staff).status_code == 204


def test_members_erase_nobody_else(api: Api, alice: User, bob: User) -> None:
    assert_problem(api.call("DELETE", f"/users/{bob.id}/", alice), 403, "staff-only")
    assert api.balance(bob) == 4000


def test_the_list_of_users_goes_on_behind_one_who_was_erased_meanwhile(
    api: Api, alice: User, make_user: Any
) -> None:
    users = [make_user() for _ in range(3)]
    assert erase(api, users[0]).status_code == 204
    page = api.get(f"/users/?limit=100&after={users[0].id}", alice).json()
    assert [user["id"] for user in page] == [user.id for user in users[1:]]


def test_a_password_that_was_changed_meanwhile_erases_nobody(
    api: Api, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change_it_first(password: str, encoded: str) -> bool:
        monkeypatch.undo()
        body = {"current_password": PASSWORD, "new_password": "another horse, another battery"}
        assert api.post("/users/password/", body, alice).status_code == 204
        return is_password(password, encoded)

    monkeypatch.setattr(erasure, "is_password", change_it_first)
    assert_problem(erase(api, alice), 422, "wrong-password")
    again = api.log_in(alice.id, alice.username, "another horse, another battery")
    assert api.balance(again) == 4000


def test_of_two_who_erase_the_same_user_the_second_is_told_as_anybody_without_account(
    api: Api, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def erase_first(password: str, encoded: str) -> bool:
        monkeypatch.undo()
        assert erase(api, alice).status_code == 204
        return is_password(password, encoded)

    monkeypatch.setattr(erasure, "is_password", erase_first)
    assert_problem(erase(api, alice), 401, "not-authenticated")
