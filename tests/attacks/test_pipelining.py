"""Several requests in one packet: those in order are answered, whatever comes behind them."""

import json
from collections.abc import Callable

import pytest

from tests.api.client import User
from tests.attacks.raw import exchange
from tests.stack.services import EmbeddedService

LIVE = b"GET /livez/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b'{"message": "hello"}'


def a_send(user: User, body: bytes = BODY) -> bytes:
    return (
        b"POST /send/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
        % (user.jwt.encode(), len(body), body)
    )


CHUNKED = b"POST /livez/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "junk",
    [b"\0\0\0\0", b"GET /\r\n\r\n", CHUNKED + b"zz\r\n", LIVE.replace(b"Host", b"X")],
    ids=["no request", "half a line", "a bad chunk", "no host"],
)
def test_what_is_carried_out_is_answered_whatever_follows_it(
    service: EmbeddedService, alice: User, spent: Callable[[], int], junk: bytes
) -> None:
    answer, *others = exchange(service.url, LIVE + a_send(alice) + junk + a_send(alice))[1:]
    assert (answer.status, others) == (201, [])
    assert answer.headers["connection"] == "close"
    assert json.loads(answer.body)["response"]
    assert spent() == 100
    (answer,) = exchange(service.url, a_send(alice) + junk + LIVE)
    assert answer.status == 201
    assert spent() == 200
