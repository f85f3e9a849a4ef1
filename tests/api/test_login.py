"""`POST /users/login/`"""

from typing import Any

import jwt
import pytest
from django.conf import settings

from accounts.models import Credential
from tests.api.client import PASSWORD, Api, User, assert_problem, places


def log_in(api: Api, username: Any, password: Any = PASSWORD) -> Any:
    return api.post("/users/login/", {"username": username, "password": password})


def test_it_answers_with_a_jwt_for_sixty_minutes(api: Api, alice: User) -> None:
    answer = log_in(api, alice.username)
    assert answer.status_code == 200
    assert answer.json().keys() == {"token", "expires_in"}
    assert answer.json()["expires_in"] == 3600
    claims = jwt.decode(
        answer.json()["token"], settings.JWT_SIGNING_KEY, ["HS256"], audience="chatledger"
    )
    assert claims["sub"] == alice.id
    assert claims["exp"] - claims["iat"] == 3600


def test_a_name_may_be_written_in_any_case(api: Api, alice: User) -> None:
    assert log_in(api, alice.username.upper()).status_code == 200


def test_a_wrong_name_a_wrong_password_and_a_deactivated_account_are_told_alike(
    api: Api, alice: User, bob: User
) -> None:
    Credential.objects.filter(user_id=bob.id).update(active=False)
    answers = [
        log_in(api, "nobody-of-this-name"),
        log_in(api, alice.username, PASSWORD + "!"),
        log_in(api, alice.username, PASSWORD.upper()),
        log_in(api, bob.username),
        log_in(api, "a name that nobody can have \U0001f600"),
        log_in(api, ""),
        log_in(api, alice.username, ""),
    ]
    documents = [assert_problem(answer, 401, "wrong-credentials") for answer in answers]
    for answer, document in zip(answers, documents, strict=True):
        assert answer.headers["www-authenticate"] == "Bearer"
        del document["request_id"]
        assert document == documents[0]


@pytest.mark.parametrize(
    ("username", "password", "place"),
    [
        ("a" * 1_025, PASSWORD, ["body", "username"]),
        ("alice", "x" * 1_025, ["body", "password"]),
        ("al\0ice", PASSWORD, ["body", "username"]),
        ("alice", "\0", ["body", "password"]),
        (None, PASSWORD, ["body", "username"]),
        ("alice", 12345678, ["body", "password"]),
    ],
)
def test_what_is_no_name_or_password_is_refused(
    api: Api, username: Any, password: Any, place: list[str]
) -> None:
    problem = assert_problem(log_in(api, username, password), 422, "invalid-input")
    assert places(problem) == [place]


def test_a_jwt_that_is_sent_along_changes_nothing(api: Api, alice: User) -> None:
    body = {"username": alice.username, "password": PASSWORD}
    headers = {"Authorization": "Bearer nonsense"}
    assert api.post("/users/login/", body, headers=headers).status_code == 200
