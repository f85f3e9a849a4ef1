"""`POST /users/password/`"""

from typing import Any

import pytest

from tests.api.client import PASSWORD, Api, User, assert_problem, places

NEW_PASSWORD = "another horse, another battery"


def change(api: Api, user: User, current: Any = PASSWORD, new: Any = NEW_PASSWORD) -> Any:
    return api.post("/users/password/", {"current_password": current, "new_password": new}, user)


def test_the_new_password_logs_in_and_the_old_one_no_more(api: Api, alice: User) -> None:
    answer = change(api, alice)
    assert answer.status_code == 204
    assert answer.content == b""
    assert "content-type" not in answer.headers
    old = {"username": alice.username, "password": PASSWORD}
    assert_problem(api.post("/users/login/", old), 401, "wrong-credentials")
    again = api.log_in(alice.id, alice.username, NEW_PASSWORD)
    assert api.get("/token/", again).status_code == 200


def test_every_jwt_of_before_stops_working(api: Api, alice: User) -> None:
    other = api.log_in(alice.id, alice.username)
    change(api, alice)
    for before in (alice, other):
        assert_problem(api.get("/token/", before), 401, "not-authenticated")


def test_a_wrong_current_password_changes_nothing(api: Api, alice: User) -> None:
    problem = assert_problem(change(api, alice, current="a guess"), 422, "wrong-password")
    assert places(problem) == [["body", "current_password"]]
    assert api.get("/token/", alice).status_code == 200
    api.log_in(alice.id, alice.username)


@pytest.mark.parametrize("new", ["", "short", "password", "9018263547", "x" * 1_025, "a\0bcdefgh"])
def test_a_weak_new_password_changes_nothing(api: Api, alice: User, new: str) -> None:
    problem = assert_problem(change(api, alice, new=new), 422, "invalid-input")
    assert {tuple(place) for place in places(problem)} == {("body", "new_password")}
    assert api.get("/token/", alice).status_code == 200


def test_it_changes_nobody_elses_password(api: Api, alice: User, bob: User) -> None:
    change(api, alice)
    assert api.get("/token/", bob).status_code == 200
    api.log_in(bob.id, bob.username)


def test_it_takes_a_jwt(api: Api) -> None:
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert_problem(api.post("/users/password/", body), 401, "not-authenticated")
