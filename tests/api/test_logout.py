"""`POST /users/logout/`"""

from tests.api.client import Api, User, assert_problem


def test_every_jwt_of_before_stops_working_at_once(api: Api, alice: User) -> None:
    other = api.log_in(alice.id, alice.username)
    answer = api.post("/users/logout/", user=alice)
    assert answer.status_code == 204
    assert answer.content == b""
    for before in (alice, other):
        assert_problem(api.get("/token/", before), 401, "not-authenticated")


def test_a_later_login_works(api: Api, alice: User) -> None:
    api.post("/users/logout/", user=alice)
    assert api.get("/token/", api.log_in(alice.id, alice.username)).status_code == 200


def test_nobody_else_is_logged_out(api: Api, alice: User, bob: User) -> None:
    api.post("/users/logout/", user=alice)
    assert api.get("/token/", bob).status_code == 200


def test_it_takes_a_jwt(api: Api) -> None:
    assert_problem(api.post("/users/logout/"), 401, "not-authenticated")
