"""What only staff may do: who gets that far."""

import asyncio
import json
import re

import pytest
from django.http import HttpRequest

from accounts.callers import InvalidJwt, NotAuthenticated, NotStaff, StaffJwt
from accounts.models import Credential
from config.docs import openapi_text
from tests.api.client import Api, User, assert_problem

NOBODY = "00000000-0000-4000-8000-000000000000"


def staff_routes() -> list[tuple[str, str]]:
    """Every operation that the document has under "staff": method and path."""
    return [
        (method.upper(), re.sub(r"\{\w+\}", NOBODY, path))
        for path, methods in json.loads(openapi_text())["paths"].items()
        for method, operation in methods.items()
        if "staff" in operation["tags"]
    ]


def let_in(authorization: str) -> str:
    """The actor that the log would name."""
    request = HttpRequest()
    request.META["HTTP_AUTHORIZATION"] = authorization
    return asyncio.run(StaffJwt()(request)).staff_actor


def test_staff_may(staff: User) -> None:
    assert let_in(f"Bearer {staff.jwt}") == f"staff:{staff.id}"


def test_a_member_may_not(alice: User) -> None:
    with pytest.raises(NotStaff):
        let_in(f"Bearer {alice.jwt}")


def test_whoever_is_no_staff_any_more_may_not(staff: User) -> None:
    let_in(f"Bearer {staff.jwt}")
    Credential.objects.filter(user_id=staff.id).update(role="member")
    with pytest.raises(NotStaff):
        let_in(f"Bearer {staff.jwt}")


def test_without_a_good_jwt_the_role_is_not_asked_for(api: Api) -> None:
    with pytest.raises(NotAuthenticated):
        let_in("")
    with pytest.raises(InvalidJwt):
        let_in("Bearer nonsense")


def test_there_are_routes_for_staff() -> None:
    assert len(staff_routes()) >= 3


@pytest.mark.parametrize(("method", "path"), staff_routes())
def test_a_member_gets_403_before_anything_is_looked_at(
    api: Api, alice: User, method: str, path: str
) -> None:
    for path_of in (path, path.replace(NOBODY, alice.id)):
        for body in ({}, {"content": b"{", "headers": {"Content-Type": "application/json"}}):
            answer = api.call(method, path_of, alice, **body)
            assert_problem(answer, 403, "staff-only")
    assert api.balance(alice) == 4000


@pytest.mark.parametrize(("method", "path"), staff_routes())
def test_nobody_gets_401(api: Api, method: str, path: str) -> None:
    assert_problem(api.call(method, path), 401, "not-authenticated")
