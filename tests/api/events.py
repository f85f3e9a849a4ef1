"""Event streams as a client reads them (WHATWG HTML, section 9.2)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.api.client import Api, User, assert_documented

ACCEPT = {"Accept": "text/event-stream"}


@dataclass
class Event:
    """One event: its id, its name and what it says."""

    id: str
    name: str
    data: dict[str, Any]


@contextmanager
def streaming(
    api: Api, method: str, path: str, user: User, **request: Any
) -> Iterator[tuple[httpx.Response, Iterator[Event]]]:
    """An event stream that has begun, and its events as they come."""
    headers = {**user.headers, **ACCEPT, **request.pop("headers", {})}
    with api.http.stream(method, path, headers=headers, **request) as response:
        if response.status_code != 200:
            response.read()
        assert_documented(response)
        yield response, _events(response)


def send_streamed(api: Api, user: User, message: str, **headers: str) -> list[Event]:
    """All events of a message that is sent now."""
    with streaming(api, "POST", "/send/", user, json={"message": message}, headers=headers) as (
        response,
        events,
    ):
        assert response.status_code == 200, response.text
        return list(events)


def follow(api: Api, user: User, message_id: str, last: str | None = None) -> list[Event]:
    """All events of a message from the start, or behind the last id."""
    headers = {} if last is None else {"Last-Event-ID": last}
    path = f"/messages/{message_id}/stream/"
    with streaming(api, "GET", path, user, headers=headers) as (response, events):
        assert response.status_code == 200, response.text
        return list(events)


def text_of(events: list[Event], before: str = "") -> str:
    """The text that a client has put together by the rules of the contract."""
    text = before
    for event in events:
        if event.name == "restart":
            text = ""
        elif event.name == "delta":
            text += event.data["text"]
    return text


def _events(response: httpx.Response) -> Iterator[Event]:
    said: dict[str, str] = {}
    for line in response.iter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            said[name] = value
        elif said:
            yield Event(said["id"], said["event"], json.loads(said["data"]))
            said = {}
