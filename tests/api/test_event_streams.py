"""`Accept: text/event-stream` on both send endpoints, and `GET /messages/{id}/stream/`"""

import json
import threading
import time
from uuid import uuid4

import pytest

from conversations import event_stream
from tests.api.client import Api, User, assert_problem, places
from tests.api.events import ACCEPT, follow, send_streamed, streaming, text_of

TALE = "tell once upon a time"
TOLD = "once upon a time "


def test_a_response_comes_as_events(api: Api, alice: User) -> None:
    *deltas, done = send_streamed(api, alice, TALE)
    assert {event.name for event in deltas} == {"delta"}
    assert text_of(deltas) == TOLD
    assert done.name == "done"
    assert done.data == {"id": done.data["id"], "response": TOLD, "cost": 100}
    message = api.get(f"/messages/{done.data['id']}/", alice).json()
    assert (message["status"], message["response"]) == ("done", TOLD)
    assert api.balance(alice) == 3900


def test_an_event_stream_names_its_message_and_is_kept_by_nobody(api: Api, alice: User) -> None:
    with streaming(api, "POST", "/send/", alice, json={"message": TALE}) as (response, events):
        *_, done = events
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["location"] == f"/messages/{done.data['id']}/"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["x-request-id"]


def test_ids_are_the_attempt_and_the_characters_so_far(api: Api, alice: User) -> None:
    events = send_streamed(api, alice, TALE)
    attempt = events[0].id.partition("-")[0]
    assert int(attempt) >= 1
    characters = 0
    for event in events[:-1]:
        characters += len(event.data["text"])
        assert event.id == f"{attempt}-{characters}"
    assert events[-1].id == f"{attempt}-{len(TOLD)}-end"


def test_the_first_piece_comes_before_the_end(api: Api, alice: User, held: threading.Event) -> None:
    with streaming(api, "POST", "/send/", alice, json={"message": "half a tale"}) as (_, events):
        first = next(events)
        assert (first.name, first.data) == ("delta", {"text": "Once "})
        held.set()
        rest = list(events)
    assert [event.name for event in rest] == ["delta", "done"]
    assert text_of([first, *rest]) == rest[-1].data["response"]


def test_what_the_stream_ends_with_is_shown_by_then(api: Api, alice: User) -> None:
    for _ in range(5):
        done = send_streamed(api, alice, "hello")[-1]
        assert api.get(f"/messages/{done.data['id']}/", alice).json()["status"] == "done"


def test_a_failed_message_says_what_was_refunded(api: Api, alice: User) -> None:
    (failed,) = send_streamed(api, alice, "fail")
    assert failed.name == "failed"
    assert failed.data == {"id": failed.data["id"], "reason": "responder", "refunded": 100}
    assert api.balance(alice) == 4000


def test_a_refusal_is_a_problem_and_no_stream(api: Api, alice: User) -> None:
    for _ in range(40):
        api.send(alice, "hello")
    with streaming(api, "POST", "/send/", alice, json={"message": TALE}) as (response, _):
        assert_problem(response, 402, "insufficient-tokens")


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("application/json, text/event-stream", "application/json"),
        ("text/event-stream;q=0, */*", "application/json"),
        ("text/event-stream;q=0.5, application/json", "application/json"),
        ("text/event-stream, */*;q=0.1", "text/event-stream"),
        ("TEXT/EVENT-STREAM", "text/event-stream"),
        (";;text/event-stream;;", "application/json"),
    ],
)
def test_what_a_client_likes_best_is_what_it_gets(
    api: Api, alice: User, accept: str, media_type: str
) -> None:
    answer = api.post("/send/", {"message": "hello"}, alice, headers={"Accept": accept})
    assert answer.headers["content-type"].partition(";")[0] == media_type


def test_a_conversation_has_event_streams_too(api: Api, alice: User) -> None:
    conversation = api.post("/conversations/", {}, alice).json()
    path = f"/conversations/{conversation['id']}/messages/"
    with streaming(api, "POST", path, alice, json={"message": TALE}) as (_, events):
        told = list(events)
    assert text_of(told) == TOLD
    (message,) = api.get(path, alice).json()
    assert message["id"] == told[-1].data["id"]


def test_no_character_of_a_response_ends_a_line(api: Api, alice: User) -> None:
    # Tab to space, and what Python's `splitlines` takes for the end of a line.
    odd = "".join(map(chr, range(1, 32))) + "\x7f\x85\u2028\u2029\ufeff\U0001f600"
    with api.http.stream(
        "POST", "/send/", headers={**alice.headers, **ACCEPT}, json={"message": f"echo {odd}"}
    ) as response:
        lines = response.read().decode().splitlines()
    assert len(lines) == 2 * 4
    assert json.loads(lines[2].removeprefix("data: ")) == {"text": odd}


def test_a_repeat_gets_the_stream_from_the_start_and_pays_nothing(api: Api, alice: User) -> None:
    first = send_streamed(api, alice, TALE, **{"Idempotency-Key": "k"})
    again = send_streamed(api, alice, TALE, **{"Idempotency-Key": "k"})
    assert text_of(first) == text_of(again) == TOLD
    assert first[-1] == again[-1]
    assert api.balance(alice) == 3900


def test_every_place_can_be_resumed_after_the_end(api: Api, alice: User) -> None:
    told = send_streamed(api, alice, TALE)
    message_id, attempt = told[-1].data["id"], told[0].id.partition("-")[0]
    assert text_of(follow(api, alice, message_id)) == TOLD
    for characters in range(len(TOLD) + 1):
        rest = follow(api, alice, message_id, f"{attempt}-{characters}")
        assert text_of(rest, TOLD[:characters]) == TOLD
        assert "restart" not in {event.name for event in rest}
        assert rest[-1] == told[-1]


def test_a_place_in_a_text_that_was_given_up_begins_again(api: Api, alice: User) -> None:
    told = send_streamed(api, alice, TALE)
    message_id, attempt = told[-1].data["id"], told[0].id.partition("-")[0]
    for last in (f"{int(attempt) + 1}-5", f"{attempt}-{len(TOLD) + 1}"):
        rest = follow(api, alice, message_id, last)
        assert [event.name for event in rest] == ["restart", "delta", "done"]
        assert (rest[0].id, rest[0].data) == (f"{attempt}-0", {})
        assert text_of(rest, "void") == TOLD


def test_who_has_seen_the_last_event_gets_nothing_more(api: Api, alice: User) -> None:
    for message in (TALE, "fail"):
        last = send_streamed(api, alice, message)[-1]
        answer = api.get(
            f"/messages/{last.data['id']}/stream/", alice, headers={"Last-Event-ID": last.id}
        )
        assert (answer.status_code, answer.content) == (204, b"")


def test_readers_come_and_go_while_it_is_generated(
    api: Api, alice: User, held: threading.Event
) -> None:
    location = api.send(alice, "half a tale", prefer="respond-async").headers["location"]
    path = f"{location}stream/"
    with streaming(api, "GET", path, alice) as (_, events):
        first = next(events)
    with (
        streaming(api, "GET", path, alice) as (_, from_the_start),
        streaming(api, "GET", path, alice, headers={"Last-Event-ID": first.id}) as (_, behind),
    ):
        held.set()
        whole, rest = list(from_the_start), list(behind)
    assert whole[-1] == rest[-1]
    assert text_of(whole) == text_of(rest, "Once ") == whole[-1].data["response"]


def test_a_client_that_hangs_up_loses_nothing(api: Api, alice: User, held: threading.Event) -> None:
    with streaming(api, "POST", "/send/", alice, json={"message": "half a tale"}) as (
        response,
        events,
    ):
        next(events)
    held.set()
    location = response.headers["location"]
    until = time.monotonic() + 10
    while (message := api.get(location, alice).json())["status"] == "pending":
        assert time.monotonic() < until
    assert (message["status"], message["cost"]) == ("done", 100)


def test_silence_is_broken_by_comments(
    api: Api, alice: User, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.05)
    with api.http.stream(
        "POST", "/send/", headers={**alice.headers, **ACCEPT}, json={"message": "hold it"}
    ) as response:
        lines = response.iter_lines()
        assert next(lines).startswith(":")
        assert next(lines) == ""
        assert next(lines).startswith(":")
        held.set()
        assert "event: done" in list(lines)


@pytest.mark.parametrize(
    "last", ["x", "1", "1-", "-1", "1-2-3", "1-2-endless", "1-2 3", "1" * 30 + "-1", "\xff", "1-२"]
)
def test_an_id_that_is_none_is_refused(api: Api, alice: User, last: str) -> None:
    message_id = send_streamed(api, alice, TALE)[-1].data["id"]
    answer = api.get(
        f"/messages/{message_id}/stream/",
        alice,
        headers={"Last-Event-ID": last.encode()},
    )
    assert places(assert_problem(answer, 422, "invalid-input")) == [["header", "Last-Event-ID"]]


def test_a_stream_of_somebody_elses_is_not_found(api: Api, alice: User, bob: User) -> None:
    message_id = send_streamed(api, alice, TALE)[-1].data["id"]
    for path in (f"/messages/{message_id}/stream/", f"/messages/{uuid4()}/stream/"):
        assert_problem(api.get(path, bob), 404, "not-found")


def test_the_head_of_a_stream_can_be_asked_for(api: Api, alice: User) -> None:
    message_id = send_streamed(api, alice, TALE)[-1].data["id"]
    answer = api.http.head(f"/messages/{message_id}/stream/", headers=alice.headers)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "text/event-stream"
