"""Several requests in one packet: those in order are answered, whatever comes behind them."""

import json
from collections.abc import Callable

import pytest

from config.http_protocol import PIPELINED_MAX
from tests.api.client import User
from tests.attacks.raw import exchange
from tests.attacks.test_logins import peak_kib
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


def test_a_packet_full_of_requests_is_answered_in_part_and_takes_no_memory(
    service: EmbeddedService, alice: User, spent: Callable[[], int]
) -> None:
    before = peak_kib(service)
    requests = a_send(alice) + LIVE * (256 * 1024 // len(LIVE))
    answers = exchange(service.url, requests)
    assert [answer.status for answer in answers] == [201] + [200] * PIPELINED_MAX
    assert answers[-1].headers["connection"] == "close"
    assert spent() == 100
    assert peak_kib(service) - before < 8 * 1024
