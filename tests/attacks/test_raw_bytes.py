"""Requests that two readers could understand differently, and heads without an end."""

from collections.abc import Callable
from itertools import chain, repeat

import pytest

from config.http_protocol import HEAD_BYTES_MAX, PIPELINED_MAX
from tests.api.client import User
from tests.attacks.raw import Answer, connect, exchange
from tests.attacks.test_logins import peak_kib
from tests.stack.services import EmbeddedService

BODY = b'{"message": "hello"}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"14\r\n" + BODY + b"\r\n0\r\n\r\n"
CLOSE = b"Connection: close\r\n"

Send = Callable[..., list[Answer]]
Spent = Callable[[], int]


@pytest.fixture
def send(service: EmbeddedService, alice: User) -> Send:
    """A send of alice's with these headers and bytes behind the head."""

    def send(headers: bytes, body: bytes, version: bytes = b"1.1") -> list[Answer]:
        head = (
            b"POST /send/ HTTP/%s\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %s\r\n" % (version, alice.jwt.encode())
        )
        return exchange(service.url, head + headers + b"\r\n" + body)

    return send


def test_a_request_in_order_is_served(send: Send, spent: Spent) -> None:
    for headers, body in ((LENGTH, BODY), (CHUNKED, CHUNKS)):
        (answer,) = send(headers + CLOSE, body)
        assert answer.status == 201
    assert spent() == 200


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (LENGTH + CHUNKED, CHUNKS),
        (CHUNKED + LENGTH, CHUNKS),
        (LENGTH + b"Content-Length: 5\r\n", BODY),
        (LENGTH + LENGTH, BODY),
        (b"Content-Length: 20, 20\r\n", BODY),
        (b"Content-Length: +20\r\n", BODY),
        (b"Content-Length: -20\r\n", BODY),
        (b"Content-Length: 0x14\r\n", BODY),
        (b"Content-Length: 2 0\r\n", BODY),
        (b"Content-Length: 99999999999999999999999\r\n", BODY),
        (b"Content-Length :20\r\n", BODY),
        (b"Transfer-Encoding: xchunked\r\n", CHUNKS),
        (b"Transfer-Encoding: chunked, identity\r\n", CHUNKS),
        (b"Transfer-Encoding: identity, chunked\r\n", CHUNKS),
        (b"Transfer-Encoding: gzip, chunked\r\n", CHUNKS),
        (b"Transfer-Encoding: gzip\r\n" + CHUNKED, CHUNKS),
        (b"Transfer-Encoding:\x0bchunked\r\n", CHUNKS),
        (CHUNKED, CHUNKS.replace(b"14\r\n", b"14\n")),
        (CHUNKED, CHUNKS.replace(b"14\r\n", b"14 \r\n")),
        (CHUNKED, CHUNKS.replace(b"14\r\n", b"0x14\r\n")),
        (CHUNKED, CHUNKS.replace(b"14\r\n", b"-14\r\n")),
        (CHUNKED, CHUNKS.replace(b"14\r\n", b"fffffffffffffffff\r\n")),
        (CHUNKED, CHUNKS.replace(b"}\r\n", b"}xx")),
        (LENGTH + b"X: a\r\n b\r\n", BODY),
        (LENGTH + b"X: a\r\n\tb\r\n", BODY),
        (LENGTH + b"X : a\r\n", BODY),
        (LENGTH + b": a\r\n", BODY),
        (LENGTH + b"X\r\n", BODY),
        (LENGTH + b"X: a\nY: b\r\n", BODY),
        (LENGTH + b"X: a\rY: b\r\n", BODY),
        (LENGTH + b"X: a\0b\r\n", BODY),
        (LENGTH + b"X: a\x7fb\r\n", BODY),
        (LENGTH + b"Host: localhost\r\n", BODY),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(
    send: Send, spent: Spent, headers: bytes, body: bytes
) -> None:
    (answer,) = send(headers, body)
    answer.assert_problem(400, "bad-request")
    assert answer.headers["connection"] == "close"
    assert spent() == 0


def test_chunks_in_http_1_0_are_refused(send: Send, spent: Spent) -> None:
    (answer,) = send(CHUNKED, CHUNKS, version=b"1.0")
    answer.assert_problem(400, "bad-request")
    assert spent() == 0


def test_bare_line_feeds_are_refused(service: EmbeddedService) -> None:
    for request in (
        b"GET /livez/ HTTP/1.1\nHost: localhost\n\n",
        b"GET /livez/ HTTP/1.1\r\nHost: localhost\n\r\n",
        b"GET /livez/ HTTP/1.1\r\nHost: localhost\r\n\n",
    ):
        (answer,) = exchange(service.url, request)
        answer.assert_problem(400, "bad-request")


@pytest.mark.parametrize(
    "line",
    [
        b"GET /livez/ HTTP/1.1",
        b"GET /livez/ HTTP/9.9",
        b"GET /livez/",
        b"GET  /livez/  HTTP/1.1",
        b"GET /li vez/ HTTP/1.1",
        b"GET /\0 HTTP/1.1",
        b"GET /\xff\xfe HTTP/1.1",
        b"G\xc3\x89T / HTTP/1.1",
        b"CONNECT localhost:22 HTTP/1.1",
        b"PRI * HTTP/2.0\r\n\r\nSM",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_request_of_http_1_is_refused(service: EmbeddedService, line: bytes) -> None:
    # The first of them is one, but for the Host that it lacks.
    (answer,) = exchange(service.url, line + b"\r\n\r\n")
    answer.assert_problem(400, "bad-request")


def test_an_older_client_may_leave_out_the_host(service: EmbeddedService) -> None:
    (answer,) = exchange(service.url, b"GET /livez/ HTTP/1.0\r\n\r\n")
    assert answer.status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
        + b"x" * HEAD_BYTES_MAX,
        b"GET /livez/?" + b"x" * HEAD_BYTES_MAX,
        b"GET /livez/ HTTP/1.1\r\nHost: localhost\r\n" + b"X: x\r\n" * (HEAD_BYTES_MAX // 6),
        b"G" * 4 + b" /" + b"x" * HEAD_BYTES_MAX,
    ],
    ids=["one header", "the address", "many headers", "no method either"],
)
def test_a_head_of_more_than_16_kib_is_refused(service: EmbeddedService, head: bytes) -> None:
    (answer,) = exchange(service.url, head + b"\r\n\r\n")
    if head.startswith(b"GGGG"):
        answer.assert_problem(400, "bad-request")
    else:
        answer.assert_problem(431, "head-too-large")


@pytest.mark.parametrize("piece_bytes", [512, 1024, 4096, HEAD_BYTES_MAX])
@pytest.mark.parametrize(
    "line", [b"GET /livez/?%s HTTP/1.1\r\n", b"GET /livez/ HTTP/1.1\r\nX: %s\r\n"]
)
def test_a_head_is_as_long_as_it_is_however_it_is_cut(
    service: EmbeddedService, line: bytes, piece_bytes: int
) -> None:
    for size, status in ((9_900, 200), (HEAD_BYTES_MAX - 200, 200), (2 * HEAD_BYTES_MAX, 431)):
        head = line % (b"x" * size) + b"Host: localhost\r\n" + CLOSE + b"\r\n"
        pieces = [head[at : at + piece_bytes] for at in range(0, len(head), piece_bytes)]
        (answer,) = exchange(service.url, *pieces, pause_seconds=0.002)
        assert answer.status == status


def test_a_trailer_without_an_end_is_refused_before_it_fills_the_memory(
    service: EmbeddedService, send: Send, spent: Spent
) -> None:
    before = peak_kib(service)
    (answer,) = send(CHUNKED, CHUNKS[:-2] + b"X: " + b"x" * 8 * 1024 * 1024)
    answer.assert_problem(431, "head-too-large")
    assert peak_kib(service) - before < 4 * 1024
    assert spent() == 0


def test_trailers_are_no_way_around_it(send: Send, spent: Spent) -> None:
    trailers = b"X: y\r\n" * HEAD_BYTES_MAX
    (answer,) = send(CHUNKED, CHUNKS[:-2] + trailers + b"\r\n")
    answer.assert_problem(431, "head-too-large")
    assert spent() == 0


def test_a_jwt_of_8_mb_is_refused_long_before_it_is_held_in_memory(
    service: EmbeddedService,
) -> None:
    before = peak_kib(service)
    head = b"GET /token/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
    with connect(service.url) as connection, pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
        for piece in chain([head], repeat(b"x" * 65_536, 128)):
            connection.sendall(piece)
    assert peak_kib(service) - before < 4 * 1024
    assert exchange(service.url, b"GET /livez/ HTTP/1.0\r\n\r\n")[0].status == 200


def test_a_second_request_behind_a_refused_one_is_not_looked_at(
    send: Send, alice: User, spent: Spent
) -> None:
    smuggled = (
        b"POST /send/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %s\r\n%s\r\n%s" % (alice.jwt.encode(), LENGTH, BODY)
    )
    (answer,) = send(CHUNKED + LENGTH, b"0\r\n\r\n" + smuggled)
    assert answer.status == 400
    assert spent() == 0


OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_whoever_offers_another_protocol_keeps_its_body_and_its_connection(
    service: EmbeddedService, alice: User, spent: Spent, offer: bytes
) -> None:
    head = (
        b"POST /send/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %s\r\n%s%s" % (alice.jwt.encode(), LENGTH, offer)
    )
    last = head.replace(b"Upgrade", b"close", 1).replace(b"Upgrade:", b"X:")
    pieces = [head + b"\r\n" + BODY, head + b"\r\n", BODY, last + b"\r\n" + BODY]
    answers = exchange(service.url, *pieces)
    assert [answer.status for answer in answers] == [201, 201, 201]
    assert spent() == 300


def test_many_offers_at_once_are_all_answered(service: EmbeddedService) -> None:
    offer = b"GET /livez/ HTTP/1.1\r\nHost: localhost\r\n" + OFFERS["h2c"] + b"\r\n"
    last = b"GET /livez/ HTTP/1.0\r\n\r\n"
    answers = exchange(service.url, offer * PIPELINED_MAX + last)
    assert [answer.status for answer in answers] == [200] * (PIPELINED_MAX + 1)


def test_an_offer_does_not_hide_what_is_refused(service: EmbeddedService) -> None:
    head = b"POST /send/ HTTP/1.1\r\nHost: localhost\r\n" + OFFERS["h2c"]
    (answer,) = exchange(service.url, head + LENGTH + CHUNKED + b"\r\n" + CHUNKS)
    answer.assert_problem(400, "bad-request")


NO_TARGETS = [b"http://a:99999/", b"http://a@/", b"http://a:/", b"http://[::1/", b"*", b"//"]


@pytest.mark.parametrize("target", NO_TARGETS)
def test_a_target_that_is_none_is_refused_and_takes_no_answer_along(
    service: EmbeddedService, alice: User, spent: Spent, target: bytes
) -> None:
    bad = b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % target
    head = b"POST /send/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    a_send = head + LENGTH + b"Authorization: Bearer %s\r\n\r\n" % alice.jwt.encode() + BODY
    (answer,) = exchange(service.url, bad + a_send)
    assert answer.status in (400, 404)
    for sends in (1, 2):
        answers = exchange(service.url, a_send * sends + bad)
        assert [answer.status for answer in answers][:sends] == [201] * sends
    assert spent() == 300


def test_a_target_may_name_the_host(service: EmbeddedService) -> None:
    request = b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    (answer,) = exchange(service.url, request % b"http://localhost/livez/?x=1")
    assert answer.status == 200
    for target in (b"http://localhost", b"http://localhost?x=1"):
        assert exchange(service.url, request % target)[0].headers["location"] == "/docs"
