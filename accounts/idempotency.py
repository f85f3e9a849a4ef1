"""`Idempotency-Key`: what a client calls a command, so that a repeat is known for one."""

import re
from typing import Any

from django.http import HttpRequest

IDEMPOTENCY_KEY_CHARACTERS_MAX = 255


class InvalidIdempotencyKey(Exception):
    """What was given as a key is none."""


def idempotency_key(request: HttpRequest) -> str | None:
    """The key of a request, None when it has none. Raises `InvalidIdempotencyKey`."""
    key: str | None = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is None:
        return None
    if "," in key and _times_given(request) > 1:
        # Django joins them into a text that nobody sent.
        raise InvalidIdempotencyKey
    return checked_key(key)


def _times_given(request: HttpRequest) -> int:
    headers = getattr(request, "scope", {}).get("headers", ())
    return sum(name == b"idempotency-key" for name, _ in headers)


def checked_key(key: str) -> str:
    """The key itself. Raises `InvalidIdempotencyKey`."""
    if not _KEY.fullmatch(key):
        raise InvalidIdempotencyKey
    return key


def idempotency_parameter(description: str) -> dict[str, Any]:
    """The header as the OpenAPI document describes it."""
    return {
        "in": "header",
        "name": "Idempotency-Key",
        "description": description,
        "schema": {
            "type": "string",
            "pattern": "^[!-~]+$",
            "minLength": 1,
            "maxLength": IDEMPOTENCY_KEY_CHARACTERS_MAX,
        },
    }


_KEY = re.compile(rf"[!-~]{{1,{IDEMPOTENCY_KEY_CHARACTERS_MAX}}}")
