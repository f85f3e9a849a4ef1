"""`POST /messages/{id}/cancel/`"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from tests.api.client import Api, User, assert_problem
from tests.api.events import follow, streaming, text_of


def begun(api: Api, user: User, message: str) -> str:
    """The id of a message that is being generated, once its first text is there if it has any."""
    answer = api.send(user, message, prefer="respond-async")
    message_id: str = answer.json()["id"]
    if message.startswith("half"):
        with streaming(api, "GET", f"/messages/{message_id}/stream/", user) as (_, events):
            next(events)
    return message_id


def test_a_message_cancelled_before_any_text_is_refunded(
    api: Api, alice: User, held: threading.Event
) -> None:
    message_id = begun(api, alice, "hold it")
    started = time.monotonic()
    message = api.post(f"/messages/{message_id}/cancel/", user=alice).json()
    assert time.monotonic() - started < 1
    assert (message["status"], message["response"], message["cost"]) == ("cancelled", None, 0)
    assert message["responded_at"]
    assert api.balance(alice) == 4000
    (end,) = follow(api, alice, message_id)
    assert (end.name, end.data) == (
        "cancelled",
        {"id": message_id, "response": None, "cost": 0},
    )


def test_a_message_cancelled_after_the_first_text_keeps_it_and_costs_its_price(
    api: Api, alice: User, held: threading.Event
) -> None:
    message_id = begun(api, alice, "half a tale")
    message = api.post(f"/messages/{message_id}/cancel/", user=alice).json()
    assert (message["status"], message["response"], message["cost"]) == ("cancelled", "Once ", 100)
    assert api.balance(alice) == 3900
    held.set()
    *deltas, end = follow(api, alice, message_id)
    assert text_of(deltas) == end.data["response"] == "Once "


def test_who_watches_sees_it_cancelled_without_a_character_too_many(
    api: Api, alice: User, held: threading.Event
) -> None:
    with streaming(api, "POST", "/send/", alice, json={"message": "half a tale"}) as (
        response,
        events,
    ):
        first = next(events)
        cancelled = api.post(f"{response.headers['location']}cancel/", user=alice).json()
        held.set()
        (end,) = events
    assert (end.name, end.data["response"]) == ("cancelled", "Once ")
    assert cancelled["response"] == text_of([first])


def test_who_waits_gets_the_message_when_it_is_cancelled(
    api: Api, alice: User, held: threading.Event
) -> None:
    key = {"idempotency_key": "k"}
    message_id = api.send(alice, "hold it", prefer="respond-async", **key).json()["id"]
    with ThreadPoolExecutor(1) as others:
        waiting = others.submit(api.send, alice, "hold it", **key)
        cancelled = api.post(f"/messages/{message_id}/cancel/", user=alice).json()
        answer = waiting.result()
    assert (answer.status_code, answer.json()) == (200, cancelled)
    assert answer.headers["location"] == f"/messages/{message_id}/"
    again = api.send(alice, "hold it", **key)
    assert (again.status_code, again.json()) == (200, cancelled)


def test_a_message_that_has_ended_is_returned_as_it_is(api: Api, alice: User) -> None:
    for message in ("hello", "fail"):
        answer = api.send(alice, message)
        location = answer.headers.get("location")
        if location is None:
            continue
        before = api.get(location, alice).json()
        assert api.post(f"{location}cancel/", user=alice).json() == before
    assert api.balance(alice) == 3900


def test_cancelling_twice_refunds_once(api: Api, alice: User, held: threading.Event) -> None:
    message_id = begun(api, alice, "hold it")
    path = f"/messages/{message_id}/cancel/"
    with ThreadPoolExecutor(8) as devices:
        answers = [devices.submit(api.post, path, user=alice) for _ in range(8)]
        bodies = [answer.result().json() for answer in answers]
    assert all(body == bodies[0] for body in bodies)
    assert api.balance(alice) == 4000


def test_a_response_that_comes_after_a_cancel_changes_nothing(
    api: Api, alice: User, held: threading.Event
) -> None:
    message_id = begun(api, alice, "hold it")
    cancelled = api.post(f"/messages/{message_id}/cancel/", user=alice).json()
    held.set()
    assert api.send(alice, "hello").status_code == 201
    assert api.get(f"/messages/{message_id}/", alice).json() == cancelled
    assert api.balance(alice) == 3900


def test_somebody_elses_message_is_not_found_and_goes_on(
    api: Api, alice: User, bob: User, held: threading.Event
) -> None:
    message_id = begun(api, alice, "hold it")
    for wrong in (message_id, uuid4()):
        assert_problem(api.post(f"/messages/{wrong}/cancel/", user=bob), 404, "not-found")
    assert api.get(f"/messages/{message_id}/", alice).json()["status"] == "pending"


def test_who_waits_is_told_when_the_message_is_deleted(
    api: Api, alice: User, held: threading.Event
) -> None:
    key = {"idempotency_key": "k"}
    message_id = api.send(alice, "half a tale", prefer="respond-async", **key).json()["id"]
    with streaming(api, "GET", f"/messages/{message_id}/stream/", alice) as (_, events):
        next(events)
        conversation_id = api.get(f"/messages/{message_id}/", alice).json()["conversation_id"]
        with ThreadPoolExecutor(1) as others:
            waiting = others.submit(api.send, alice, "half a tale", **key)
            time.sleep(0.1)
            deleted = api.call("DELETE", f"/conversations/{conversation_id}/", alice)
            answers = [waiting.result(), api.send(alice, "half a tale", **key)]
        (end,) = events
    assert deleted.status_code == 204
    assert (end.name, end.data["response"], end.data["cost"]) == ("cancelled", None, 100)
    for answer in answers:
        detail = assert_problem(answer, 404, "not-found")["detail"]
        assert detail == "The message was deleted with its conversation."
    assert api.balance(alice) == 3900
