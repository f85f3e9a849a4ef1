"""SQL, numbers without end and strange text in every field: refused or kept as text, no 500."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest

from accounts.domain import STAFF
from config.docs import openapi_text
from tests.api.client import Api, User
from tests.stack.services import EmbeddedService

HOSTILE = (
    "' OR '1'='1",
    "'; DROP TABLE eventstore_event; --",
    '" UNION SELECT password_hash FROM accounts_credential --',
    "%s %(id)s %% {0} ${x} {{7*7}}",
    "\\'); SELECT pg_sleep(9); --",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "a\r\nSet-Cookie: a=b",
    "\u202egnp.exe",
    "9" * 5_000,
    "-" + "9" * 5_000,
    "1e309",
    "NaN",
    "0x7fffffffffffffff",
    str(2**63),
    str(-(2**63) - 1),
    "null",
    "",
    " ",
    "[]",
    "0" * 100_000,
)
#: What stands in the fields that are not tried.
GOOD: dict[str, Any] = {
    "username": "nobody-here",
    "password": "correct horse battery",
    "current_password": "correct horse battery",
    "new_password": "password",  # refused, so that nothing changes
    "message": "hello",
    "title": "a title",
    "amount": 1,
    "reason": "a reason",
}
NOBODY = "00000000-0000-4000-8000-000000000000"

#: Each try of theirs may cost a hash of a password.
HASHING = {"register_user", "log_in", "change_password", "erase_own_account"}

Operation = tuple[str, str, dict[str, Any]]


def operations() -> Iterator[Operation]:
    """Every operation of the document: method, path with good values in it, and the whole of it."""
    for path, methods in json.loads(openapi_text())["paths"].items():
        for method, operation in methods.items():
            filled = path.replace("{position}", "1")
            yield method.upper(), re.sub(r"\{\w+\}", NOBODY, filled), operation | {"at": path}


def last(operation: Operation) -> bool:
    """Those that end a JWT come behind all others."""
    return bool(operation[2]["operationId"] == "log_out")


def fields(operation: dict[str, Any]) -> list[str]:
    """The fields of an operation's body."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    reference = json.dumps(body.get("schema", {}))
    found = re.search(r"#/components/schemas/(\w+)", reference)
    if not found:
        return []
    schemas = json.loads(openapi_text())["components"]["schemas"]
    return list(schemas[found[1]]["properties"])


def attempts(method: str, path: str, operation: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Requests, each with one hostile value: in a field, in a parameter, or in the path."""
    names = fields(operation)
    for text in HOSTILE[:8:3] if operation["operationId"] in HASHING else HOSTILE:
        for name in names:
            body = {each: GOOD[each] for each in names} | {name: text}
            yield path, {"content": json.dumps(body).encode()}
        for parameter in operation["parameters"]:
            if parameter["in"] == "query":
                yield f"{path}?{quote(parameter['name'])}={quote(text[:8_000])}", {}
            elif parameter["in"] == "header":
                value = text[:8_000].encode("utf-8").replace(b"\r\n", b" ").strip()
                yield path, {"headers": {parameter["name"]: value}}
            else:
                place = quote(text[:8_000], safe="")
                yield re.sub(r"\{\w+\}", lambda _: place, operation["at"]), {}  # noqa: B023


@pytest.fixture(scope="module")
def staff(service: EmbeddedService, api: Api) -> User:
    """A member of staff who may be logged out and forgotten by what is tried."""
    user = api.new_user("attacker")
    assert service.run("manage.py", "set_role", user.username, STAFF).returncode == 0
    return user


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [pytest.param(*each, id=each[2]["operationId"]) for each in sorted(operations(), key=last)],
)
def test_no_value_is_more_than_a_value(
    api: Api, staff: User, method: str, path: str, operation: dict[str, Any]
) -> None:
    for target, request in attempts(method, path, operation):
        headers = {"Content-Type": "application/json", **request.pop("headers", {})}
        answer = api.http.request(method, target, headers={**headers, **staff.headers}, **request)
        assert answer.status_code < 500, (target, request, answer.text)


def test_what_looks_like_sql_is_kept_as_it_was_written(api: Api, alice: User) -> None:
    for text in HOSTILE[:9]:
        started = api.post("/conversations/", {"title": text}, alice).json()
        assert api.get(f"/conversations/{UUID(started['id'])}/", alice).json()["title"] == text
        sent = api.post(f"/conversations/{started['id']}/messages/", {"message": text}, alice)
        assert api.get(sent.headers["location"], alice).json()["message"] == text
