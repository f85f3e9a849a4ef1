"""`GET /token/`"""

from tests.api.client import Api, User, assert_problem


def test_it_shows_the_signup_grant(api: Api, alice: User) -> None:
    answer = api.get("/token/", alice)
    assert answer.status_code == 200
    assert answer.json() == {"tokens": 4000}


def test_it_shows_every_answered_send_at_once(api: Api, alice: User, bob: User) -> None:
    for sent in range(1, 6):
        assert api.send(alice, "hello").status_code == 201
        assert api.balance(alice) == 4000 - 100 * sent
    assert api.balance(bob) == 4000


def test_it_takes_a_jwt(api: Api) -> None:
    assert_problem(api.get("/token/"), 401, "not-authenticated")
