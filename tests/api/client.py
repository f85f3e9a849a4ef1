"""A client for the tests: it knows the endpoints, and believes the OpenAPI document."""

import functools
import json
import re
from dataclasses import dataclass
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker

from config.docs import openapi_text
from config.openapi import PROBLEM_SCHEMA
from config.problems import CONTENT_TYPE, PROBLEMS

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class User:
    """Somebody who is logged in."""

    id: str
    username: str
    jwt: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.jwt}"}


class Api:
    """Requests to the service; each answer must be one that the document allows."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def call(
        self, method: str, path: str, user: User | None = None, **request: Any
    ) -> httpx.Response:
        """Send a request, as `user` if there is one."""
        headers = {**(user.headers if user else {}), **request.pop("headers", {})}
        response = self.http.request(method, path, headers=headers, **request)
        assert_documented(response)
        return response

    def get(self, path: str, user: User | None = None, **request: Any) -> httpx.Response:
        return self.call("GET", path, user, **request)

    def post(
        self, path: str, body: Any = None, user: User | None = None, **request: Any
    ) -> httpx.Response:
        return self.call(
            "POST", path, user, **({"json": body} if body is not None else {}), **request
        )

    def send(self, user: User, message: str, **headers: str) -> httpx.Response:
        """Send a message; `idempotency_key="k"` becomes the header of that name."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.post("/send/", {"message": message}, user, headers=named)

    def new_user(self, username: str) -> User:
        """Register and log in."""
        body = {"username": username, "password": PASSWORD}
        registered = self.post("/users/register/", body)
        assert registered.status_code == 201, registered.text
        return self.log_in(registered.json()["id"], username)

    def log_in(self, user_id: str, username: str, password: str = PASSWORD) -> User:
        """Get another JWT."""
        answer = self.post("/users/login/", {"username": username, "password": password})
        assert answer.status_code == 200, answer.text
        return User(user_id, username, answer.json()["token"])

    def balance(self, user: User) -> int:
        """The user's tokens."""
        tokens: int = self.get("/token/", user).json()["tokens"]
        return tokens


def assert_problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The answer is this problem, whole and in order; returns the document."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == CONTENT_TYPE
    document: dict[str, Any] = response.json()
    Draft202012Validator(PROBLEM_SCHEMA).validate(document)
    assert document["type"] == f"/problems/{slug}/"
    assert document["title"] == PROBLEMS[slug].title
    assert document["status"] == status
    assert document["instance"] == response.request.url.raw_path.decode().partition("?")[0]
    assert document["request_id"] == response.headers["x-request-id"]
    return document


def places(document: dict[str, Any]) -> list[list[str | int]]:
    """Where a 422 says the mistakes are."""
    return [error["loc"] for error in document["errors"]]


def assert_documented(response: httpx.Response) -> None:
    """The status and the body are among those that the document names for this operation."""
    assert response.status_code != 500, response.text
    operation = _operation(response.request.method, response.request.url.path)
    if operation is None:
        return
    allowed = operation["responses"].get(str(response.status_code))
    assert allowed is not None, f"{response.status_code} is not documented: {response.text}"
    if reference := allowed.get("$ref"):
        allowed = _document()["components"]["responses"][reference.rpartition("/")[2]]
    content = allowed.get("content")
    if content is None:
        assert response.content == b""
        return
    media_type = response.headers["content-type"].partition(";")[0]
    if media_type == "text/event-stream":
        assert media_type in content
        return
    schema = content[media_type]["schema"] | {"components": _document()["components"]}
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(response.json())


@functools.cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(openapi_text())
    return document


def _operation(method: str, path: str) -> dict[str, Any] | None:
    for template, operations in _document()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "([0-9a-f-]{36}|[0-9]+)", template), path):
            found: dict[str, Any] | None = operations.get(method.lower())
            return found
    return None
