"""What a request says twice, where only one of both could count."""

from collections.abc import Callable

import pytest

from tests.api.client import Api, User, assert_problem, places
from tests.stack.services import EmbeddedService

EVENTS = "/audit/events/?type=chatledger.accounts.UserExported&limit=1000"


@pytest.mark.parametrize("keys", [("a", "b"), ("a", "a"), ("a", "")])
def test_two_idempotency_keys_are_none(
    api: Api, alice: User, staff: User, spent: Callable[[], int], keys: tuple[str, str]
) -> None:
    twice = [("Idempotency-Key", key) for key in keys]
    for user, path, body in (
        (alice, "/send/", {"message": "hello"}),
        (staff, f"/users/{alice.id}/grants/", {"amount": 1, "reason": "twice"}),
    ):
        headers = [*user.headers.items(), *twice]
        answer = api.http.post(path, json=body, headers=headers)
        problem = assert_problem(answer, 422, "invalid-input")
        assert places(problem) == [["header", "Idempotency-Key"]]
    assert spent() == 0


def test_a_comma_in_a_key_is_a_character_like_any_other(
    api: Api, alice: User, spent: Callable[[], int]
) -> None:
    for _ in range(2):
        assert api.send(alice, "hello", idempotency_key="a,b").status_code == 201
    assert spent() == 100


@pytest.mark.parametrize(
    ("path", "query", "name"),
    [
        ("/users/", "limit=1&limit=1", "limit"),
        ("/users/", "limit=1&after=&limit=2", "limit"),
        ("/users/", "limit=1&li%6Dit=2", "limit"),
        ("/conversations/", "limit=1&limit=2", "limit"),
        ("/token/", "at=2026-01-01T00:00:00Z&at=2026-01-02T00:00:00Z", "at"),
        ("/token/statement/", "before=3&before=4", "before"),
        ("/users/", "x=1&x=2", "x"),
    ],
)
def test_a_parameter_that_is_given_twice_is_refused(
    api: Api, alice: User, path: str, query: str, name: str
) -> None:
    problem = assert_problem(api.get(f"{path}?{query}", alice), 422, "invalid-input")
    assert places(problem) == [["query", name]]


def test_a_caller_is_asked_for_first(api: Api) -> None:
    assert_problem(api.get("/users/?limit=1&limit=1"), 401, "not-authenticated")


def test_a_second_jwt_is_not_looked_for(api: Api, alice: User, bob: User) -> None:
    headers = [*alice.headers.items(), *bob.headers.items()]
    assert_problem(api.http.get("/token/", headers=headers), 401, "not-authenticated")


def test_only_an_export_that_is_read_is_noted(api: Api, alice: User, staff: User) -> None:
    path = f"/users/{alice.id}/export/"
    before = len(api.get(EVENTS, staff).json())
    head = api.http.head(path, headers=staff.headers)
    assert (head.status_code, head.content) == (200, b"")
    assert len(api.get(EVENTS, staff).json()) == before
    assert_problem(api.get(path, alice), 403, "staff-only")
    assert api.http.head(path, headers=alice.headers).status_code == 403
    assert (
        api.get(path, staff).headers["content-disposition"] == head.headers["content-disposition"]
    )
    assert len(api.get(EVENTS, staff).json()) == before + 1


@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_a_body_where_none_is_read_has_the_same_limit(
    api: Api, alice: User, service: EmbeddedService, method: str
) -> None:
    started = api.post("/conversations/", {}, alice).json()["id"]
    path = f"/conversations/{started}/" if method == "DELETE" else "/users/logout/"
    answer = api.call(method, path, alice, content=bytes(128 * 1024 + 1))
    assert_problem(answer, 413, "body-too-large")
    assert api.get(f"/conversations/{started}/", alice).status_code == 200
