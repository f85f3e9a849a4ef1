"""`GET /users/me/`"""

from datetime import datetime

from accounts.models import Credential
from tests.api.client import Api, User, assert_problem


def test_it_shows_the_callers_own_account(api: Api, alice: User, bob: User) -> None:
    account = api.get("/users/me/", alice).json()
    datetime.fromisoformat(account.pop("created_at"))
    assert account == {
        "id": alice.id,
        "username": alice.username,
        "tokens": 4000,
        "role": "member",
    }


def test_a_role_counts_at_the_next_request(api: Api, alice: User) -> None:
    Credential.objects.filter(user_id=alice.id).update(role="staff")
    assert api.get("/users/me/", alice).json()["role"] == "staff"


def test_it_shows_what_a_message_cost(api: Api, alice: User) -> None:
    api.send(alice, "hello")
    assert api.get("/users/me/", alice).json()["tokens"] == 3900


def test_it_takes_a_jwt(api: Api) -> None:
    assert_problem(api.get("/users/me/"), 401, "not-authenticated")
