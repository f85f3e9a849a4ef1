"""What every answer has in common: request ids and headers."""

import re
import socket

import httpx
import pytest

from eventstore.reading import max_position, read_events
from tests.api.client import Api, User, assert_problem

MADE = re.compile(r"[0-9a-f]{32}")


@pytest.mark.parametrize("sent", ["a", "A-z_0.9", "x" * 64])
def test_a_clients_own_request_id_is_given_back(api: Api, sent: str) -> None:
    for path in ("/livez/", "/nowhere/", "/token/", "/docs", "/problems/"):
        assert api.get(path, headers={"X-Request-ID": sent}).headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 65, "a b", "a,b", "é", "<script>", "a/b", "a\tb"])
def test_anything_else_is_replaced(api: Api, sent: str) -> None:
    headers = {"X-Request-ID": sent.encode()}
    answer = api.get("/livez/", headers=headers)
    assert MADE.fullmatch(answer.headers["x-request-id"])


def test_request_ids_are_never_the_same(api: Api) -> None:
    assert len({api.get("/livez/").headers["x-request-id"] for _ in range(20)}) == 20


def test_the_log_has_the_servers_own_id_whatever_the_client_sent(api: Api, alice: User) -> None:
    before = max_position()
    api.send(alice, "hello", x_request_id="of-alice")
    ids = {event.request_id for event in read_events(before)}
    assert len(ids) == 1
    assert MADE.fullmatch(ids.pop())


def test_the_log_says_who_sent_what(api: Api, alice: User) -> None:
    before = max_position()
    api.send(alice, "hello")
    actors = {event.actor for event in read_events(before) if "Sent" in event.topic}
    assert actors == {f"user:{alice.id}"}


@pytest.mark.parametrize("path", ["/livez/", "/nowhere/", "/token/", "/docs", "/openapi.json"])
def test_every_answer_has_the_common_headers(api: Api, path: str) -> None:
    headers = api.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert int(headers["content-length"]) > 0
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    # Nobody promises TLS where there is none.
    assert "strict-transport-security" not in headers


def test_nobody_who_is_not_believed_switches_to_https(api: Api) -> None:
    headers = api.get("/livez/", headers={"X-Forwarded-Proto": "https"}).headers
    assert "strict-transport-security" not in headers


def test_what_is_somebodys_own_is_stored_nowhere(api: Api, alice: User) -> None:
    sent = api.send(alice, "hello")
    streamed = api.send(alice, "hello", accept="text/event-stream")
    paths = ("/users/me/", "/token/", "/token/statement/", "/conversations/", "/users/me/export/")
    for answer in (sent, streamed, *(api.get(path, alice) for path in paths)):
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("origin", ["https://app.example.org", "http://localhost:3000", "null"])
def test_without_a_setting_no_other_origin_is_let_in(api: Api, alice: User, origin: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
    preflight = api.http.options("/token/", headers=asked)
    assert_problem(preflight, 405, "method-not-allowed")
    answer = api.get("/token/", alice, headers={"Origin": origin})
    for each in (preflight, answer):
        assert not [name for name in each.headers if name.startswith("access-control-")]


def test_a_page_may_load_nothing_from_elsewhere(api: Api) -> None:
    policy = api.get("/docs").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("path", ["/livez/", "/docs", "/nowhere/", "/token/"])
def test_head_is_get_without_the_body(api: Api, path: str) -> None:
    get, head = api.get(path), api.http.head(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    if path != "/nowhere/" and path != "/token/":
        assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "a b", "localhost:x"])
def test_a_host_that_is_not_ours_is_refused(api: Api, host: str) -> None:
    answer = api.http.get("/livez/", headers={"Host": host})
    assert_problem(answer, 400, "bad-request")


def test_a_content_length_that_is_too_large_is_refused_before_the_body(server: str) -> None:
    url = httpx.URL(server)
    with socket.create_connection((url.host, url.port or 80), timeout=5) as connection:
        connection.sendall(
            b"POST /livez/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 131073\r\n"
            b"Connection: close\r\n\r\n" + b" " * 131_073
        )
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
