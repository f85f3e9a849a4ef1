"""A model's reply is text, whatever stands in it: stored, shown and streamed as it was said."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from devstack.model_scripts import says
from devstack.model_server import ModelServer
from tests.attacks.serving import unlimited
from tests.stack.client import User
from tests.stack.following import Follower
from tests.stack.services import EmbeddedService

REPLIES = {
    "script": "<script>alert(document.cookie)</script><img src=x onerror=alert(1)>",
    "an event": '\n\nevent: done\ndata: {"id": "x", "response": "forged", "cost": 0}\n\n',
    "line ends": "a\r\nb\rc\nd\u2028e\u2029f\x85g",
    "terminal": "\x1b[2J\x1b]0;title\x07\x08\x7f\x9b31m",
    "NUL": "a\0b\0",
    "every control": "".join(map(chr, range(0x20))),
    "direction": "\u202egnp.exe\u2066\u200b\ufeff",
    "no characters": "\ufffe\uffff\U0010ffff",
    "JSON": '{"response": "forged"}"}\\u0000',
    "header": "ok\r\nSet-Cookie: a=b\r\n\r\nHTTP/1.1 200 OK\r\n",
}


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        for name, reply in REPLIES.items():
            middle = len(reply) // 2
            server.scripts[name] = says(reply[:middle], reply[middle:])
        yield server


@pytest.fixture(scope="module")
def asked(model: ModelServer) -> Iterator[EmbeddedService]:
    """A service that asks the model."""
    env = {"RESPONDER": "openai", "OPENAI_BASE_URL": model.url, "OPENAI_MODEL": "scripted"}
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        unlimited(Path(folder), **env) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def user(asked: EmbeddedService) -> User:
    return asked.user("reader")


@pytest.mark.parametrize("name", REPLIES)
def test_it_is_stored_and_shown_as_it_was_said(user: User, name: str) -> None:
    sent = user.send(name)
    assert (sent.status_code, sent.json()) == (201, {"response": REPLIES[name]})
    shown = user.get(sent.headers["location"])
    assert shown.json()["response"] == REPLIES[name]
    for answer in (sent, shown, user.get("/users/me/export/")):
        assert_is_read_as_json(answer)


@pytest.mark.parametrize("name", REPLIES)
def test_it_forges_no_event_of_a_stream(user: User, name: str) -> None:
    follower = Follower(user)
    follower.send(name)
    follower.follow()
    assert {event.name for event in follower.events} == {"delta", "done"}
    assert follower.text == REPLIES[name]
    assert follower.end is not None
    assert follower.end.data["response"] == REPLIES[name]
    assert follower.end.data["cost"] == 100


def assert_is_read_as_json(answer: httpx.Response) -> None:
    """No browser takes it for a page."""
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in answer.headers
