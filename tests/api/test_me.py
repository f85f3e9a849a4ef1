"""`GET /users/me/`"""

from datetime import datetime
from uuid import UUID

from accounts.staff_commands import SetRole, set_role
from eventstore.cause import Cause
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


def test_a_role_counts_at_the_next_request(api: Api, staff: User) -> None:
    assert api.get("/users/me/", staff).json()["role"] == "staff"
    set_role(SetRole(UUID(staff.id), "member"), Cause("shell:test"))
    assert api.get("/users/me/", staff).json()["role"] == "member"


def test_it_shows_what_a_message_cost(api: Api, alice: User) -> None:
    api.send(alice, "hello")
    assert api.get("/users/me/", alice).json()["tokens"] == 3900


def test_it_takes_a_jwt(api: Api) -> None:
    assert_problem(api.get("/users/me/"), 401, "not-authenticated")
