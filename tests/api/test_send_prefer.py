"""`POST /send/` with `Prefer`"""

import threading
import time

import pytest
from pytest_django import Settings

from tests.api.client import Api, User


def test_respond_async_is_answered_at_once_and_the_response_comes_later(
    api: Api, alice: User, held: threading.Event
) -> None:
    answer = api.send(alice, "hold it", prefer="respond-async")
    assert answer.status_code == 202
    assert answer.json() == {"id": answer.json()["id"], "status": "pending"}
    assert answer.headers["location"] == f"/messages/{answer.json()['id']}/"
    assert answer.headers["preference-applied"] == "respond-async"
    assert answer.headers["vary"] == "Prefer, Accept"


def test_what_was_accepted_is_shown_at_once(api: Api, alice: User, held: threading.Event) -> None:
    location = api.send(alice, "hold it", prefer="respond-async").headers["location"]
    message = api.get(location, alice).json()
    assert message["status"] == "pending"
    assert message["message"] == "hold it"
    assert message["response"] is None
    assert message["responded_at"] is None
    assert message["cost"] == 100
    assert api.balance(alice) == 3900


def test_wait_ends_with_202_when_the_time_is_over(
    api: Api, alice: User, held: threading.Event
) -> None:
    started = time.monotonic()
    answer = api.send(alice, "hold it", prefer="wait=1")
    assert 0.9 < time.monotonic() - started < 5
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "wait=1"


def test_wait_ends_with_the_response_when_it_comes_first(api: Api, alice: User) -> None:
    answer = api.send(alice, "hello", prefer="respond-async, wait=500")
    assert answer.status_code == 201
    assert answer.headers["preference-applied"] == "respond-async, wait=120"


@pytest.mark.parametrize("prefer", ["wait=soon", "respond-async=maybe", 'wait="', ";;;", "\xff"])
def test_nonsense_is_ignored(api: Api, alice: User, prefer: str) -> None:
    answer = api.post(
        "/send/", {"message": "hello"}, alice, headers={"Prefer": prefer.encode("latin-1")}
    )
    assert answer.status_code == 201
    assert "preference-applied" not in answer.headers
    assert answer.headers["vary"] == "Prefer, Accept"


def test_without_a_preference_the_wait_has_an_end(
    api: Api, alice: User, held: threading.Event, settings: Settings
) -> None:
    settings.REPLY_WAIT_SECONDS = 0.2
    answer = api.send(alice, "hold it")
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


def test_a_message_that_was_pending_gets_its_response(
    api: Api, alice: User, held: threading.Event
) -> None:
    location = api.send(alice, "hold it", prefer="respond-async").headers["location"]
    held.set()
    until = time.monotonic() + 10
    while (message := api.get(location, alice).json())["status"] == "pending":
        assert time.monotonic() < until
    assert message["status"] == "done"
