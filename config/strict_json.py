"""JSON as RFC 8259 and I-JSON (RFC 7493) want it: one meaning for every reader, or refused."""

import json
from collections import Counter
from math import isfinite
from typing import Any

#: More than any figure here needs; the price of turning text into a number is quadratic.
NUMBER_CHARACTERS_MAX = 100
#: How much of a client's own text a refusal repeats.
SHOWN_CHARACTERS_MAX = 80

Location = tuple[str | int, ...]


class MalformedJson(ValueError):
    """The bytes are not JSON, or JSON that two readers may understand differently."""


class ForbiddenText(ValueError):
    """Well-formed JSON holds, at `place`, text that no field here may hold."""

    def __init__(self, place: Location, what: str) -> None:
        super().__init__(what)
        self.place = place
        self.what = what


def parse_strict(body: bytes) -> Any:
    """Return the value that `body` holds, or raise `MalformedJson` or `ForbiddenText`.

    Refused beyond the grammar: duplicate keys, NaN and infinities, anything but UTF-8, numbers of
    more than `NUMBER_CHARACTERS_MAX` characters, nesting that the reader cannot follow, NUL and
    halves of surrogate pairs.
    """
    try:
        text = body.decode()
        value, end = _scan(text, len(text) - len(text.lstrip(_WHITESPACE)))
        # Only an escape can bring NUL or half a pair this far: raw ones are no JSON, or no UTF-8.
        # (The search for one byte is the fast one, and most bodies end it there.)
        if b"\\" in body and b"\\u" in body:
            _refuse_forbidden(value, ())
    except UnicodeDecodeError as error:
        raise MalformedJson(f"the body is not UTF-8 (byte {error.start})") from None
    except StopIteration as error:
        raise MalformedJson(f"no JSON value at character {error.value}") from None
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise MalformedJson(f"{what} at character {error.pos}") from None
    except RecursionError:
        raise MalformedJson("nested too deeply") from None
    if end != len(text) and text[end:].strip(_WHITESPACE):
        raise MalformedJson(f"something follows the JSON value at character {end}")
    return value


def shown(text: str) -> str:
    """Return a client's text as it may be repeated to it: short, and printable everywhere."""
    return ascii(text[:SHOWN_CHARACTERS_MAX])[1:-1]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key in value if counts[key] > 1)
        raise MalformedJson(f"the key '{shown(twice)}' stands twice in one object")
    return value


def _integer(digits: str) -> int:
    _refuse_long(digits)
    return int(digits)


def _decimal(digits: str) -> float:
    _refuse_long(digits)
    value = float(digits)
    if not isfinite(value):
        raise MalformedJson(f"the number {digits} is out of range")
    return value


def _constant(name: str) -> Any:
    raise MalformedJson(f"{name} is no JSON number")


def _refuse_long(digits: str) -> None:
    if len(digits) > NUMBER_CHARACTERS_MAX:
        raise MalformedJson(f"a number has more than {NUMBER_CHARACTERS_MAX} characters")


def _refuse_forbidden(value: Any, place: Location) -> None:
    if isinstance(value, str):
        _refuse_forbidden_text(value, place)
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_forbidden_text(key, (*place, shown(key)))
            _refuse_forbidden(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_forbidden(item, (*place, index))


def _refuse_forbidden_text(text: str, place: Location) -> None:
    if "\0" in text:
        raise ForbiddenText(place, "NUL is not allowed in text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ForbiddenText(place, "half a surrogate pair is not a character") from None


_WHITESPACE = " \t\n\r"
# The decoder's C scanner without its Python frames, which cost as much again on a small body.
_scan = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_decimal, parse_constant=_constant
).scan_once  # type: ignore[attr-defined]  # documented, but not in typeshed
