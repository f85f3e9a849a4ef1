"""`POST /users/register/`"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from tests.api.client import PASSWORD, Api, User, assert_problem, places


def register(api: Api, username: Any, password: Any = PASSWORD) -> Any:
    return api.post("/users/register/", {"username": username, "password": password})


def test_it_opens_an_account_with_the_signup_grant(api: Api) -> None:
    answer = register(api, "Alice.in_W-1")
    assert answer.status_code == 201
    body = answer.json()
    assert body == {"id": str(UUID(body["id"])), "username": "Alice.in_W-1", "tokens": 4000}


def test_a_name_is_taken_whatever_its_case(api: Api, alice: User) -> None:
    for name in (alice.username, alice.username.upper()):
        assert_problem(register(api, name), 409, "username-taken")


def test_of_parallel_registrations_of_one_name_one_succeeds(api: Api) -> None:
    names = ["wonderland", "Wonderland"] * 4
    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(lambda name: register(api, name), names))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7


@pytest.mark.parametrize(
    "username",
    [
        "",
        "al",
        "a" * 51,
        "a" * 10_000,
        "al ice",
        " alice",
        "alice\n",
        "al\0ice",
        "аlice",  # noqa: RUF001  (a Cyrillic letter)
        "alice\u200b",
        "ａlice",  # noqa: RUF001  (a fullwidth letter)
        "😀😀😀",
        "alice@example.com",
        "al'; DROP TABLE accounts_credential; --",
        7,
        None,
        ["alice"],
        {"name": "alice"},
        True,
    ],
)
def test_a_name_that_breaks_a_rule_is_refused(api: Api, username: Any) -> None:
    problem = assert_problem(register(api, username), 422, "invalid-input")
    assert places(problem) == [["body", "username"]]


@pytest.mark.parametrize(
    "password",
    [
        "",
        "short",
        "1234567",
        "x" * 1_025,
        "correct\0horse",
        "password",
        "83712490153",
        "margaret.thatcher",
        12345678,
        None,
    ],
)
def test_a_password_that_breaks_a_rule_is_refused(api: Api, password: Any) -> None:
    problem = assert_problem(register(api, "margaret.thatcher", password), 422, "invalid-input")
    assert {tuple(place) for place in places(problem)} == {("body", "password")}
    assert not any(
        "margaret" in error["msg"] or "8371" in error["msg"] for error in problem["errors"]
    )


def test_the_longest_password_counts_to_its_last_character(api: Api) -> None:
    password = "x" * 1_023 + "y"
    assert register(api, "long-password", password).status_code == 201
    login = {"username": "long-password", "password": password[:-1] + "z"}
    assert_problem(api.post("/users/login/", login), 401, "wrong-credentials")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, ["body", "username"]),
        ({"username": "charlie"}, ["body", "password"]),
        ({"username": "charlie", "password": PASSWORD, "role": "staff"}, ["body", "role"]),
        ({"username": "charlie", "password": PASSWORD, "tokens": 1_000_000}, ["body", "tokens"]),
        ([], ["body"]),
        ("charlie", ["body"]),
        (7, ["body"]),
    ],
)
def test_missing_and_unknown_fields_are_refused(api: Api, body: Any, place: list[str]) -> None:
    problem = assert_problem(api.post("/users/register/", body), 422, "invalid-input")
    assert place in places(problem)


def test_nobody_is_there_after_a_refusal(api: Api, alice: User) -> None:
    assert_problem(register(api, "never-there", "short"), 422, "invalid-input")
    usernames = [user["username"] for user in api.get("/users/?limit=1000", alice).json()]
    assert alice.username in usernames
    assert "never-there" not in usernames
