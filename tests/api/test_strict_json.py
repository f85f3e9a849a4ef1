"""JSON that two readers could understand differently is refused, and so is what is no text."""

import contextlib
import json
import time
from random import Random
from typing import Any

import pytest

from config.strict_json import (
    NUMBER_CHARACTERS_MAX,
    SHOWN_CHARACTERS_MAX,
    ForbiddenText,
    MalformedJson,
    parse_strict,
    shown,
)

SEED = 8259


def test_what_json_writes_is_read_back() -> None:
    random = Random(SEED)
    for _ in range(2_000):
        value = some_value(random, depth_max=4)
        for ascii_only in (True, False):
            assert parse_strict(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


def test_bent_json_is_refused_or_read_as_python_reads_it() -> None:
    random = Random(SEED)
    refused = 0
    for _ in range(5_000):
        body = bytearray(json.dumps(some_value(random, depth_max=3)).encode())
        body[random.randrange(len(body))] = random.randrange(256)
        try:
            value = parse_strict(bytes(body))
        except (MalformedJson, ForbiddenText):
            refused += 1
        else:
            assert value == json.loads(body)
    assert 1_000 < refused < 5_000


def some_value(random: Random, *, depth_max: int) -> Any:
    """A value of any kind that JSON has."""
    kind = random.randrange(8 if depth_max else 5)
    if kind == 0:
        return random.choice([None, True, False])
    if kind == 1:
        return random.randint(-(10**30), 10**30)
    if kind == 2:
        return random.uniform(-1, 1) * 10 ** random.randrange(-300, 300)
    if kind in (3, 4):
        return some_text(random)
    inside = [some_value(random, depth_max=depth_max - 1) for _ in range(random.randrange(5))]
    return inside if kind == 5 else {some_text(random): value for value in inside}


def some_text(random: Random) -> str:
    """Text from every corner of Unicode, quotes and control characters included."""
    corners = ["a", '"', "\\", "/", "\x01", "\n", "\x7f", "é", "\u2028", "\ufeff", "\U0001f600"]
    return "".join(random.choices(corners, k=random.randrange(6)))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"message"',
        b'{"message": "hello"',
        b'{"message": "hello"}}',
        b'{"message": "hello"} {"message": "again"}',
        b"{'message': 'hello'}",
        b'{"message": "hello",}',
        b"{message: 1}",
        b"// no comment\n{}",
        b"hello",
        b"tru",
        b"01",
        b"+1",
        b"1.",
        b".5",
        b"0x10",
        b'"a\nb"',
        b'{"message": "a\x00b"}',
        b'"\\x41"',
        b'"\\u00"',
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b'{"message": NaN}',
        b"1e999",
        b"-1e999",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"1" * 5_000,
        b"-" + b"1" * 5_000,
        b"0." + b"1" * 5_000,
        b"1" * (NUMBER_CHARACTERS_MAX + 1),
        b'{"message": "a", "message": "b"}',
        b'{"message": "a", "\\u006dessage": "b"}',
        b'[{"deep": {"a": 1, "a": 1}}]',
        b'\xef\xbb\xbf{"message": "hello"}',
        '{"message": "hello"}'.encode("utf-16"),
        '{"message": "hello"}'.encode("utf-32"),
        '{"message": "grüße"}'.encode("latin-1"),
        b'{"message": "\xed\xa0\x80"}',
        b'{"message": "\xc0\x80"}',
        b'{"message": "\xff"}',
    ],
)
def test_it_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedJson):
        parse_strict(body)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"message": "a\\u0000b"}', ("message",)),
        (b'{"message": "\\ud800"}', ("message",)),
        (b'{"message": "\\udc00\\ud800"}', ("message",)),
        (b'{"message": "\\uD83D"}', ("message",)),
        (b'{"a": [1, {"b": "\\u0000"}]}', ("a", 1, "b")),
        (b'{"a": {"\\u0000": 1}}', ("a", "\\x00")),
        (b'{"\\ud800": 1}', ("\\ud800",)),
        (b'"\\u0000"', ()),
    ],
)
def test_text_that_is_no_text_is_refused_with_its_place(body: bytes, place: object) -> None:
    with pytest.raises(ForbiddenText) as refused:
        parse_strict(body)
    assert refused.value.place == place


def test_a_whole_pair_and_a_control_character_are_text() -> None:
    assert parse_strict(b'{"message": "\\ud83d\\ude00\\u0001"}') == {"message": "\U0001f600\x01"}


def test_the_same_key_in_two_objects_is_no_duplicate() -> None:
    assert parse_strict(b'[{"a": 1}, {"a": {"a": 2}}]') == [{"a": 1}, {"a": {"a": 2}}]


def test_a_duplicate_key_is_named_but_not_at_length() -> None:
    key = "x" * 5_000
    with pytest.raises(MalformedJson) as refused:
        parse_strict(f'{{"{key}": 1, "{key}": 2}}'.encode())
    assert "x" * SHOWN_CHARACTERS_MAX in str(refused.value)
    assert len(str(refused.value)) < 200


def test_what_is_shown_of_a_key_can_be_printed_anywhere() -> None:
    assert shown("a\0b\ud800\n\u202eé") == "a\\x00b\\ud800\\n\\u202e\\xe9"


def test_a_hostile_body_is_refused_in_a_moment() -> None:
    bodies = [
        b'{"' + b'a":1,"' * 20_000,
        b"[" + b"1" * 100 + (b"," + b"1" * 100) * 1_200 + b"]",
        b'["' + b"\\u0041" * 20_000 + b'"]',
        b"[[" * 60_000,
        json.dumps({"message": [f"k{n}" for n in range(9_000)] + ["\0"]}).encode(),
    ]
    for body in bodies:
        started = time.perf_counter()
        with contextlib.suppress(MalformedJson, ForbiddenText):
            parse_strict(body)
        assert time.perf_counter() - started < 0.5


def test_a_key_twice_among_many_is_found_in_no_time() -> None:
    many = ",".join(f'"k{number}":0' for number in range(9_000))
    began = time.perf_counter()
    with pytest.raises(MalformedJson, match="k8999"):
        parse_strict(f'{{{many},"k8999":1}}'.encode())
    assert time.perf_counter() - began < 0.5
