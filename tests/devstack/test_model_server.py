"""The scripted model: every way to behave and to misbehave, as a plain HTTP client sees it."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from devstack.model_scripts import (
    TALE,
    Script,
    breaks_off,
    floods,
    garbage,
    hangs,
    no_choices,
    refuses,
    says,
    scripted_by_message,
    surrogates,
    trickles,
)
from devstack.model_server import THREAD_NAME, ModelServer

PROJECT = Path(__file__).parents[2]
KEY = "sk-made-up"
# It takes about a millisecond; without watching it would take until the next write, or for ever.
HANG_UP_SECONDS_MAX = 0.5
# A delta's time is taken just after its writing, when a quick client may have it.
CLOCK_SECONDS = 0.01


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def client(server: ModelServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=5) as client:
        yield client


def question(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": text}], **more}


def ask(client: httpx.Client, text: str, **more: Any) -> httpx.Response:
    return client.post("/chat/completions", json=question(text, stream=True, **more))


def data_of(response: httpx.Response) -> list[str]:
    """The data of the events of a stream."""
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream"
    *events, rest = response.text.split("\n\n")
    assert rest == ""
    return [event.removeprefix("data: ") for event in events]


def chunks_of(response: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of a stream that ends as it should."""
    *chunks, done = data_of(response)
    assert done == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def deltas_of(response: httpx.Response) -> list[str]:
    choices = [choice for chunk in chunks_of(response) for choice in chunk["choices"]]
    return [text for choice in choices if (text := choice["delta"].get("content"))]


def test_a_script_is_found_by_the_last_message_of_the_user(
    server: ModelServer, client: httpx.Client
) -> None:
    server.scripts["hello"] = says("Hi", " there")
    turns = [("user", "bye"), ("assistant", "Bye"), ("user", "hello"), ("system", "be brief")]
    messages = [{"role": role, "content": content} for role, content in turns]
    assert deltas_of(ask(client, "", messages=messages)) == ["Hi", " there"]


def test_anything_else_is_echoed_word_by_word(client: httpx.Client) -> None:
    assert deltas_of(ask(client, "good day")) == ["You", " said:", " good", " day"]


def test_a_message_may_come_in_parts(client: httpx.Client) -> None:
    parts = [{"type": "text", "text": "good "}, {"type": "text", "text": "day"}]
    messages = [{"role": "user", "content": parts}]
    assert "".join(deltas_of(ask(client, "", messages=messages))) == "You said: good day"


def test_a_stream_has_the_form_of_the_protocol(server: ModelServer, client: httpx.Client) -> None:
    server.scripts["hello"] = says("Hi", finish_reason="length")
    first, delta, last = chunks_of(ask(client, "hello"))
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert delta["choices"] == [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert {chunk["id"] for chunk in (first, delta, last)} == {first["id"]}


def test_the_scripts_of_a_list_are_taken_in_turn_and_the_last_one_repeats(
    server: ModelServer, client: httpx.Client
) -> None:
    server.scripts["hello"] = [refuses(500), says("one"), says("two")]
    assert ask(client, "hello").status_code == 500
    assert deltas_of(ask(client, "something else")) == ["You", " said:", " something", " else"]
    assert [deltas_of(ask(client, "hello")) for _ in range(3)] == [["one"], ["two"], ["two"]]


def test_the_default_can_be_one_script(server: ModelServer, client: httpx.Client) -> None:
    server.default = says("always")
    assert deltas_of(ask(client, "hello")) == ["always"]


def test_usage_is_streamed_only_when_asked_for(server: ModelServer, client: httpx.Client) -> None:
    server.scripts["hello"] = says("Hi", usage=(7, 2))
    assert all("usage" not in chunk for chunk in chunks_of(ask(client, "hello")))
    last = chunks_of(ask(client, "hello", stream_options={"include_usage": True}))[-1]
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


def test_a_script_may_always_stream_its_usage(server: ModelServer, client: httpx.Client) -> None:
    server.scripts["hello"] = says("Hi", usage=(7, 2), usage_always=True)
    assert chunks_of(ask(client, "hello"))[-1]["usage"]["total_tokens"] == 9


def test_a_stream_may_end_without_a_finish_or_done(
    server: ModelServer, client: httpx.Client
) -> None:
    server.scripts["hello"] = says("Hi", finish_reason=None, done=False)
    first, delta = map(json.loads, data_of(ask(client, "hello")))
    assert [first["choices"][0]["finish_reason"], delta["choices"][0]["finish_reason"]] == [
        None
    ] * 2
    assert delta["choices"][0]["delta"] == {"content": "Hi"}


def test_an_emoji_may_be_cut_in_two(server: ModelServer, client: httpx.Client) -> None:
    server.scripts["hello"] = says(*surrogates("ä😀"))
    response = ask(client, "hello")
    assert deltas_of(response) == ["ä", "\ud83d", "\ude00"]
    assert '"content":"ä"' in response.text
    assert '"content":"\\ud83d"' in response.text


def test_raw_bytes_may_stand_among_the_deltas(server: ModelServer, client: httpx.Client) -> None:
    server.scripts["hello"] = says("Hi", b"data: {not json\n\n", " there")
    _, before, raw, after, *_ = data_of(ask(client, "hello"))
    assert '"content":"Hi"' in before
    assert raw == "{not json"
    assert '"content":" there"' in after


def test_a_stream_may_consist_of_chunks_without_choices(
    server: ModelServer, client: httpx.Client
) -> None:
    server.scripts["hello"] = no_choices(2)
    assert [chunk["choices"] for chunk in chunks_of(ask(client, "hello"))] == [[], []]


def test_garbage_is_sent_as_it_is(server: ModelServer, client: httpx.Client) -> None:
    server.scripts["hello"] = garbage(b"<html>\xff</html>", "text/html")
    response = ask(client, "hello")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html")
    assert response.content == b"<html>\xff</html>"


def test_deltas_come_at_their_pace_and_their_times_are_kept(
    server: ModelServer, client: httpx.Client
) -> None:
    server.scripts["hello"] = says("a", "b", "c", every_seconds=0.1)
    received = {}
    with client.stream("POST", "/chat/completions", json=question("hello", stream=True)) as stream:
        for line in stream.iter_lines():
            received[line] = time.monotonic()
    first, second, third = server.requests[0].delta_times
    assert second - first > 0.05
    assert third - first > 0.15
    arrived = [received[line] for line in received if '"delta":{"content"' in line]
    # Each arrives while the next one waits: the stream is not held back to its end.
    assert arrived[0] < second < arrived[1] < third < arrived[2] + CLOCK_SECONDS


def test_the_headers_can_be_late(server: ModelServer, client: httpx.Client) -> None:
    server.scripts["hello"] = says("Hi", first_after_seconds=0.2)
    began = time.monotonic()
    with client.stream("POST", "/chat/completions", json=question("hello", stream=True)):
        assert time.monotonic() - began >= 0.2


def test_the_first_delta_can_be_later_than_the_headers(
    server: ModelServer, client: httpx.Client
) -> None:
    server.scripts["hello"] = says("Hi", stall_after_headers_seconds=0.3)
    began = time.monotonic()
    with client.stream("POST", "/chat/completions", json=question("hello", stream=True)) as stream:
        assert time.monotonic() - began < 0.3
        stream.read()
    assert time.monotonic() - began >= 0.3


def test_a_stream_can_trickle_byte_by_byte(server: ModelServer, client: httpx.Client) -> None:
    server.scripts["hello"] = trickles("Hi", byte_seconds=0.001)
    with client.stream("POST", "/chat/completions", json=question("hello", stream=True)) as stream:
        pieces = list(stream.iter_raw())
    text = b"".join(pieces).decode()
    assert text.endswith("data: [DONE]\n\n")
    assert len(pieces) > len(text) / 2


def test_a_stamped_delta_carries_the_time_of_its_sending(
    server: ModelServer, client: httpx.Client
) -> None:
    began = time.monotonic_ns()
    server.scripts["hello"] = says("a", "b", stamped=True)
    names, stamps = zip(*(d.split(":") for d in deltas_of(ask(client, "hello"))), strict=True)
    assert names == ("a", "b")
    assert began < int(stamps[0]) < int(stamps[1]) < time.monotonic_ns()


def test_a_message_can_hold_its_own_script(server: ModelServer, client: httpx.Client) -> None:
    server.default = scripted_by_message
    assert deltas_of(ask(client, '{"deltas": 3, "text": "x"}')) == ["00000 ", "00001 ", "00002 "]
    stamped = deltas_of(ask(client, '{"deltas": 2, "every": 0.01, "stamped": true}'))
    assert [delta.split(":")[0] for delta in stamped] == ["00000", "00001"]
    assert all(delta.split(":")[1].strip().isdecimal() for delta in stamped)
    assert deltas_of(ask(client, "hello")) == ["You", " said:", " hello"]
    assert ask(client, '{"deltas": 100000000}').status_code == 400


def test_a_refusal_carries_openais_error_and_retry_after(
    server: ModelServer, client: httpx.Client
) -> None:
    server.scripts["hello"] = refuses(429, message="Slow down", code="slow", retry_after=1)
    response = ask(client, "hello")
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert response.json() == {
        "error": {
            "message": "Slow down",
            "type": "invalid_request_error",
            "code": "slow",
            "param": None,
        }
    }


def test_a_stream_cut_in_the_middle_ends_in_half_an_event(
    server: ModelServer, client: httpx.Client
) -> None:
    server.scripts["hello"] = breaks_off(after=2)
    received = ""
    with (
        client.stream("POST", "/chat/completions", json=question("hello", stream=True)) as stream,
        pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"),
    ):
        for text in stream.iter_text():
            received += text
    *events, half = received.split("\n\n")
    texts = [json.loads(event[6:])["choices"][0]["delta"]["content"] for event in events]
    assert texts == ["", *TALE[:2]]
    assert half.startswith("data: {")
    assert not half.endswith("}")
    server.wait_for(lambda: server.requests[0].closed_at)
    assert not server.requests[0].client_hung_up
    assert server.requests[0].sent_deltas == 2


@pytest.mark.parametrize(
    ("script", "deltas"),
    [
        (hangs(after="before_headers"), 0),
        (hangs(after="after_headers"), 0),
        (hangs(after=3), 3),
        (hangs(after=len(TALE)), len(TALE)),
        (says("Hi", first_after_seconds=60), 0),
        (says("Hi", stall_after_headers_seconds=60), 0),
        (says("Hi", " there", every_seconds=60), 1),
        (trickles("Hi", byte_seconds=60), 0),
        (floods(50_000_000), 0),
    ],
)
def test_a_client_that_hangs_up_on_a_silent_or_busy_script_is_noticed_at_once(
    server: ModelServer, script: Script, deltas: int
) -> None:
    server.scripts["hello"] = script
    with connection(server) as client:
        client.sendall(request_bytes("hello"))
        server.wait_for(lambda: server.requests and server.requests[0].sent_deltas == deltas)
        assert server.now_streaming == 1
        client.close()
        hung_up_at = time.monotonic()
        server.wait_for(lambda: server.requests[0].closed_at)
    asked = server.requests[0]
    assert asked.client_hung_up
    assert asked.closed_at
    assert asked.closed_at - hung_up_at < HANG_UP_SECONDS_MAX
    assert asked.sent_deltas == deltas
    assert server.now_streaming == 0


def test_a_hanging_stream_stays_open_as_long_as_the_client_waits(server: ModelServer) -> None:
    server.scripts["hello"] = hangs(after=1)
    with httpx.Client(base_url=server.url, timeout=0.3) as client, pytest.raises(httpx.ReadTimeout):
        ask(client, "hello")
    server.wait_for(lambda: server.requests[0].closed_at)
    assert server.requests[0].client_hung_up


def test_a_flood_is_one_line_and_waits_for_its_client(
    server: ModelServer, client: httpx.Client
) -> None:
    server.scripts["hello"] = floods(50_000_000)
    with client.stream("POST", "/chat/completions", json=question("hello", stream=True)) as stream:
        assert server.requests[0].closed_at is None
        size = newlines = 0
        for piece in stream.iter_raw():
            size += len(piece)
            newlines += piece.count(b"\n")
    assert (size, newlines) == (len("data: ") + 50_000_000, 0)


@pytest.mark.parametrize("point", [-1, 2])
def test_a_script_cannot_fail_after_more_deltas_than_it_has(point: int) -> None:
    with pytest.raises(ValueError, match="cannot hang"):
        hangs(after=point, deltas=["a"])
    with pytest.raises(ValueError, match="cannot cut"):
        breaks_off(after=point, deltas=["a"])


def test_without_a_stream_the_script_is_one_completion(
    server: ModelServer, client: httpx.Client
) -> None:
    server.scripts["hello"] = says("Hi", " there", usage=(7, 2))
    body = client.post("/chat/completions", json=question("hello")).json()
    assert body["object"] == "chat.completion"
    message = {"role": "assistant", "content": "Hi there"}
    assert body["choices"] == [{"index": 0, "message": message, "finish_reason": "stop"}]
    assert body["usage"]["total_tokens"] == 9


def test_without_a_stream_an_answer_can_be_cut_too(
    server: ModelServer, client: httpx.Client
) -> None:
    server.scripts["hello"] = breaks_off(after=0)
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        client.post("/chat/completions", json=question("hello"))


def test_a_request_is_recorded_with_its_times(server: ModelServer, client: httpx.Client) -> None:
    server.scripts["hello"] = says("a", "b", first_after_seconds=0.01)
    ask(client, "hello", max_tokens=5, stop=["\n"])
    server.wait_for(lambda: server.requests[0].closed_at)
    (asked,) = server.requests
    assert asked.body == question("hello", stream=True, max_tokens=5, stop=["\n"])
    assert (asked.text, asked.sent_deltas, asked.client_hung_up) == ("hello", 2, False)
    assert asked.headers["user-agent"].startswith("python-httpx/")
    assert asked.first_byte_at
    assert asked.closed_at
    assert asked.began_at < asked.first_byte_at < asked.closed_at < time.monotonic()


def test_only_the_last_requests_are_kept() -> None:
    with ModelServer(requests_kept_max=2) as server, httpx.Client(base_url=server.url) as client:
        for text in ("one", "two", "three"):
            ask(client, text)
        assert [asked.text for asked in server.requests] == ["two", "three"]


def test_waiting_for_what_does_not_happen_ends(server: ModelServer) -> None:
    with pytest.raises(TimeoutError):
        server.wait_for(lambda: False, timeout_seconds=0.01)


def test_the_models_are_listed(client: httpx.Client) -> None:
    body = client.get("/models").json()
    assert body["object"] == "list"
    assert [(model["id"], model["object"]) for model in body["data"]] == [("scripted", "model")]


def test_a_wrong_key_is_refused_and_repeated() -> None:
    with ModelServer(api_key=KEY) as server, httpx.Client(base_url=server.url) as client:
        client.headers["authorization"] = "Bearer sk-wrong"
        for response in (client.get("/models"), ask(client, "hello")):
            assert response.status_code == 401
            error = response.json()["error"]
            assert (error["code"], error["param"]) == ("invalid_api_key", None)
            assert "sk-wrong" in error["message"]
        del client.headers["authorization"]
        assert ask(client, "hello").status_code == 401
        client.headers["authorization"] = f"Basic {KEY}"
        assert client.get("/models").status_code == 401
        client.headers["authorization"] = f"Bearer {KEY}"
        assert client.get("/models").status_code == 200
        assert deltas_of(ask(client, "hello")) == ["You", " said:", " hello"]


def test_one_connection_takes_many_requests(server: ModelServer) -> None:
    server.scripts["refused"] = refuses(500)
    with connection(server) as client:
        texts = ("hello", "refused", "hello")
        # At once: what comes early is not taken for the end.
        client.sendall(b"".join(request_bytes(text) for text in texts))
        server.wait_for(lambda: [asked.text for asked in server.requests] == [*texts])
        server.wait_for(lambda: server.requests[-1].closed_at)
        assert not any(asked.client_hung_up for asked in server.requests)


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /v1/models HTTP/9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 8\r\n\r\nnot json",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n[]",
        b'POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 14\r\n\r\n{"messages":1}',
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_request_gets_400_and_the_end(server: ModelServer, request_: bytes) -> None:
    with connection(server) as client:
        client.sendall(request_)
        received = b""
        while data := client.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 400 ")
    assert server.requests == []


def test_an_unknown_page_is_not_found(client: httpx.Client) -> None:
    assert client.get("/nothing").status_code == 404


def test_many_streams_run_at_once(server: ModelServer) -> None:
    count = 500
    server.scripts["hello"] = says("a", "b", every_seconds=1.0)
    clients = [connection(server) for _ in range(count)]
    for client in clients:
        client.sendall(request_bytes("hello"))
    server.wait_for(lambda: server.now_streaming == count)
    server.wait_for(lambda: sum(bool(asked.closed_at) for asked in server.requests) == count)
    assert {asked.sent_deltas for asked in server.requests} == {2}
    for client in clients:
        client.close()


def test_threads_can_ask_at_the_same_time(server: ModelServer) -> None:
    def one(number: int) -> str:
        with httpx.Client(base_url=server.url) as client:
            return "".join(deltas_of(ask(client, f"number {number}")))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, range(16)))
    assert answers == [f"You said: number {number}" for number in range(16)]


def test_stopping_closes_the_connections_and_ends_the_thread(
    server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.scripts["hello"] = hangs(after=1)
    server.scripts["flood"] = floods(50_000_000)
    with connection(server) as idle, connection(server) as hanging, connection(server) as flooded:
        hanging.sendall(request_bytes("hello"))
        flooded.sendall(request_bytes("flood"))
        server.wait_for(lambda: server.now_streaming == 2)
        thread = server._thread
        assert (thread.name, thread.is_alive()) == (THREAD_NAME, True)
        server.stop()
        for client in (idle, hanging, flooded):
            while client.recv(65536):
                pass
    assert not thread.is_alive()
    assert all(asked.closed_at and not asked.client_hung_up for asked in server.requests)
    assert caplog.records == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/models")


def test_it_can_stop_and_serve_the_same_port_again(server: ModelServer) -> None:
    url = server.url
    server.stop()
    server.start()
    assert httpx.get(f"{url}/models").status_code == 200


def test_as_a_process_it_says_how_to_use_it_and_ends_with_ctrl_c() -> None:
    command = [sys.executable, "-m", "devstack.model_server", "--scripted-by-message"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=PROJECT, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout
            settings = dict(setting.split("=") for setting in process.stdout.readline().split())
            with httpx.Client(base_url=settings["OPENAI_BASE_URL"]) as client:
                answer = deltas_of(ask(client, '{"deltas": 2}'))
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=10)
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, "")
    assert (settings["RESPONDER"], settings["OPENAI_MODEL"]) == ("openai", "scripted")
    assert answer == ["00000 ", "00001 "]


def connection(server: ModelServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=5)


def request_bytes(text: str) -> bytes:
    body = json.dumps(question(text, stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
