"""One request id: in the lines of the web process and of the worker, and in the events."""

import io
import json
import logging
from collections.abc import Iterator
from uuid import UUID

import pytest

from config.logs import JsonFormatter
from conversations.actors import generate_response
from eventstore.reading import read_stream
from tests.api.client import Api, User

TRACE = "a1" * 16


class Lines:
    """What is logged, as whoever collects lines of JSON gets it."""

    def __init__(self) -> None:
        self.handler = logging.StreamHandler(io.StringIO())
        self.handler.setFormatter(JsonFormatter())

    def about(self, words: str) -> dict[str, str]:
        lines = [json.loads(line) for line in self.handler.stream.getvalue().splitlines()]
        (line,) = [line for line in lines if words in line["message"]]
        found: dict[str, str] = line
        return found


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines = Lines()
    logging.getLogger().addHandler(lines.handler)
    yield lines
    logging.getLogger().removeHandler(lines.handler)


def test_the_lines_and_the_events_of_a_message_carry_its_request_id(
    api: Api, alice: User, lines: Lines
) -> None:
    traceparent = f"00-{TRACE}-{'b2' * 8}-01"
    answer = api.send(alice, "fail", x_request_id="mine", traceparent=traceparent)
    assert answer.status_code == 502
    message_id = UUID(answer.json()["detail"].split("message ")[1].split(" ")[0])

    sent, failed = read_stream(message_id)
    assert sent.request_id == failed.request_id
    assert failed.causation_id == sent.event_id
    line = lines.about("got no response")
    assert line["request_id"] == sent.request_id
    assert (line["message_id"], line["user_id"]) == (str(message_id), alice.id)


def test_what_a_thread_logs_for_a_request_carries_its_ids(
    api: Api, alice: User, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(message_id: str) -> None:
        raise ConnectionError("the broker is away")

    monkeypatch.setattr(generate_response, "send", away)
    headers = {"prefer": "respond-async", "x_request_id": "mine"}
    answer = api.send(alice, "hello", **headers, traceparent=f"00-{TRACE}-{'b2' * 8}-01")
    assert answer.status_code == 202

    line = lines.about("waits for the sweeper")
    sent = read_stream(UUID(answer.json()["id"]))[0]
    assert {name: line[name] for name in line if name.endswith("_id")} == {
        "request_id": sent.request_id,
        "client_request_id": "mine",
        "trace_id": TRACE,
        "user_id": alice.id,
        "message_id": str(sent.stream_id),
    }


def test_a_password_thread_logs_with_the_ids_of_its_request(
    api: Api, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def log_in(_: object) -> None:
        logging.getLogger("accounts").warning("somebody logs in")
        raise ValueError("nobody foresaw it")

    monkeypatch.setattr("accounts.commands.log_in", log_in)
    body = {"username": "nobody", "password": "correct horse battery"}
    answer = api.http.post("/users/login/", json=body)
    assert answer.status_code == 500
    assert lines.about("somebody logs in")["request_id"] == answer.json()["request_id"]
