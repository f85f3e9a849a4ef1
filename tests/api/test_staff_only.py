"""What only staff may do: who gets that far."""

import asyncio
from collections.abc import Callable

import pytest
from django.http import HttpRequest

from accounts.api import InvalidJwt, NotAuthenticated, NotStaff, StaffJwt
from accounts.models import Credential
from tests.api.client import User


def let_in(authorization: str) -> str:
    """The actor that the log would name."""
    request = HttpRequest()
    request.META["HTTP_AUTHORIZATION"] = authorization
    return asyncio.run(StaffJwt()(request)).staff_actor


def test_staff_may(alice: User) -> None:
    Credential.objects.filter(user_id=alice.id).update(role="staff")
    assert let_in(f"Bearer {alice.jwt}") == f"staff:{alice.id}"


def test_a_member_may_not(make_user: Callable[[], User]) -> None:
    with pytest.raises(NotStaff):
        let_in(f"Bearer {make_user().jwt}")


def test_whoever_is_no_staff_any_more_may_not(alice: User) -> None:
    Credential.objects.filter(user_id=alice.id).update(role="staff")
    let_in(f"Bearer {alice.jwt}")
    Credential.objects.filter(user_id=alice.id).update(role="member")
    with pytest.raises(NotStaff):
        let_in(f"Bearer {alice.jwt}")


def test_without_a_good_jwt_the_role_is_not_asked_for(api: object) -> None:
    with pytest.raises(NotAuthenticated):
        let_in("")
    with pytest.raises(InvalidJwt):
        let_in("Bearer nonsense")
