"""What a body may not be, whatever it says: 400, 413, 415 or 422, and nothing is written."""

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from config.strict_json import SHOWN_CHARACTERS_MAX
from tests.api.client import Api, User, assert_problem, places

JSON = {"Content-Type": "application/json"}
LIMIT = 128 * 1024


def post(api: Api, user: User, content: bytes | Iterator[bytes], **headers: str) -> httpx.Response:
    return api.call("POST", "/send/", user, content=content, headers={**JSON, **headers})


def message_of_size(size: int) -> bytes:
    body = b'{"message": "hello"}'
    return body + b" " * (size - len(body))


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b"{", "Expecting"),
        (b'{"message": "hello"', "delimiter"),
        (b'{"message": "hello"} x', "follows"),
        (b"hello", "no JSON value"),
        (b" ", "no JSON value"),
        (b'{"message": NaN}', "NaN"),
        (b'{"message": -Infinity}', "-Infinity"),
        (b'{"message": 1e999}', "range"),
        (b'{"message": "a", "message": "b"}', "twice"),
        (b'{"message": "\xff"}', "UTF-8"),
        ('{"message": "hello"}'.encode("utf-16"), "UTF-8"),
        (b'{"message": "a\nb"}', "control character"),
        (b"[" * 100_000, "deep"),
        (b'{"message":' * 10_000 + b"1" + b"}" * 10_000, "deep"),
        (b'{"message": ' + b"1" * 5_000 + b"}", "number"),
    ],
)
def test_a_body_that_is_no_json_is_refused(api: Api, alice: User, body: bytes, cause: str) -> None:
    problem = assert_problem(post(api, alice, body), 400, "malformed-json")
    assert cause in problem["detail"]
    assert api.balance(alice) == 4000


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"message": "a\\u0000b"}', ["body", "message"]),
        (b'{"message": "\\ud800"}', ["body", "message"]),
        (b'{"message": "hello", "\\udc00": 1}', ["body", "\\udc00"]),
        (b'{"message": ["\\ud800"]}', ["body", "message", 0]),
    ],
)
def test_text_that_is_no_text_is_refused(
    api: Api, alice: User, body: bytes, place: list[str]
) -> None:
    assert places(assert_problem(post(api, alice, body), 422, "invalid-input")) == [place]
    assert api.balance(alice) == 4000


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/problem+json",
        "application/jsonx",
        "text/json",
        "*/*",
        "application/json, application/json",
        "",
        ";",
    ],
)
def test_a_body_that_is_not_declared_as_json_is_refused(
    api: Api, alice: User, content_type: str
) -> None:
    answer = api.call(
        "POST",
        "/send/",
        alice,
        content=b'{"message": "hello"}',
        headers={"Content-Type": content_type},
    )
    assert_problem(answer, 415, "not-json")
    assert api.balance(alice) == 4000


def test_a_body_without_a_declaration_is_refused(api: Api, alice: User) -> None:
    answer = api.call("POST", "/send/", alice, content=b'{"message": "hello"}')
    assert_problem(answer, 415, "not-json")


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "Application/JSON", 'application/json; charset="UTF-8"'],
)
def test_json_may_be_declared_in_other_ways(api: Api, alice: User, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    answer = api.call("POST", "/send/", alice, content=b'{"message": "hello"}', headers=headers)
    assert answer.status_code == 201


def test_no_body_at_all_lacks_its_fields(api: Api, alice: User) -> None:
    answer = api.call("POST", "/send/", alice)
    assert places(assert_problem(answer, 422, "invalid-input")) == [["body"]]


def test_a_body_may_have_128_kib_and_no_byte_more(api: Api, alice: User) -> None:
    assert post(api, alice, message_of_size(LIMIT)).status_code == 201
    assert_problem(post(api, alice, message_of_size(LIMIT + 1)), 413, "body-too-large")
    assert api.balance(alice) == 3900


def test_a_body_that_does_not_say_its_size_has_the_same_limit(api: Api, alice: User) -> None:
    def chunks(size: int) -> Iterator[bytes]:
        body = message_of_size(size)
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    assert post(api, alice, chunks(LIMIT)).status_code == 201
    assert_problem(post(api, alice, chunks(LIMIT + 1)), 413, "body-too-large")
    assert_problem(post(api, alice, chunks(20 * LIMIT)), 413, "body-too-large")
    assert api.balance(alice) == 3900


def test_the_longest_message_fits_however_it_is_written(api: Api, alice: User) -> None:
    message = "\U0001f600" * 8_000
    for ascii_only in (True, False):
        body = json.dumps({"message": message}, ensure_ascii=ascii_only).encode()
        assert post(api, alice, body).status_code == 201


def test_only_some_of_many_mistakes_are_named_and_none_at_length(api: Api, alice: User) -> None:
    fields = {f"{number}-{'x' * 200}": 1 for number in range(500)}
    body = json.dumps({"message": "hello", **fields}).encode()
    problem = assert_problem(post(api, alice, body), 422, "invalid-input")
    assert len(problem["errors"]) == 20
    assert all(len(str(place[-1])) <= SHOWN_CHARACTERS_MAX for place in places(problem))


def test_a_hostile_body_is_answered_in_a_moment(api: Api, alice: User) -> None:
    bodies = [
        b"[" * LIMIT,
        b'{"a":' * (LIMIT // 5),
        b'{"message": "' + b"\\u0000" * 20_000 + b'"}',
        b"{" + b",".join(b'"k%d":1' % number for number in range(10_000)) + b"}",
        b'{"message": ' + b"9" * 120_000 + b"}",
    ]
    started = time.monotonic()
    for body in bodies:
        assert post(api, alice, body).status_code in (400, 422)
    assert time.monotonic() - started < 5


def test_a_caller_is_asked_for_before_the_body_is_read(api: Api) -> None:
    answer = api.call("POST", "/send/", content=b"{", headers=JSON)
    assert_problem(answer, 401, "not-authenticated")
