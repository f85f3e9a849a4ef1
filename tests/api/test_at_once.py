"""How much of something one user may have going on at a time: event streams and exports."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest

from accounts.at_once import RETRY_AFTER_SECONDS, AtOnce, Held, TooManyAtOnce
from conversations.api import streams
from privacy.api import exports
from tests.api.client import Api, User, assert_problem

EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    for what in (streams, exports):
        monkeypatch.setattr(what, "most", 2)


@contextmanager
def stream(api: Api, user: User, method: str, path: str, **request: Any) -> Iterator[None]:
    """Have a stream open, from its head on."""
    headers = user.headers | EVENTS
    with api.http.stream(method, path, headers=headers, **request) as answer:
        assert answer.status_code == 200, answer.read()
        yield


def eventually(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    assert any(condition() or pause.wait(0.05) for _ in range(200))


def test_a_stream_too_many_is_refused_before_anything_is_debited(
    api: Api, alice: User, bob: User, held: threading.Event, two: None
) -> None:
    waiting = api.send(alice, "hold on", prefer="respond-async").json()["id"]
    path = f"/messages/{waiting}/stream/"
    with ExitStack() as open_streams:
        open_streams.enter_context(stream(api, alice, "GET", path))
        sent = {"json": {"message": "hold this too"}}
        open_streams.enter_context(stream(api, alice, "POST", "/send/", **sent))
        before = api.balance(alice)

        refused = [
            api.get(path, alice),
            api.send(alice, "one more", accept="text/event-stream"),
        ]
        for answer in refused:
            document = assert_problem(answer, 429, "too-many-at-once")
            assert document["detail"] == "You may have 2 streams going on at a time."
            assert answer.headers["Retry-After"] == str(RETRY_AFTER_SECONDS)
        assert api.balance(alice) == before
        assert api.get(path, bob).status_code == 404
        assert api.send(alice, "hello, without a stream").status_code == 201

    eventually(lambda: streams._going[UUID(alice.id)] == 0)
    with stream(api, alice, "GET", path):
        pass


def test_a_stream_that_ends_makes_room_for_the_next(api: Api, alice: User, two: None) -> None:
    for _ in range(5):
        answer = api.send(alice, "hello", accept="text/event-stream")
        assert answer.status_code == 200
    ended = answer.headers["location"]
    for _ in range(5):
        assert api.get(f"{ended}stream/", alice).status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [("/messages/{id}/stream/", 404), ("/conversations/{id}/messages/", 404), ("/send/", 402)],
)
def test_what_comes_to_no_stream_takes_no_place(
    api: Api, alice: User, two: None, settings: Any, path: str, status: int
) -> None:
    settings.MESSAGE_PRICE = 5000
    path = path.format(id=uuid4())
    for _ in range(4):
        method = "GET" if path.endswith("/stream/") else "POST"
        request = {} if method == "GET" else {"json": {"message": "hello"}}
        answer = api.call(method, path, alice, headers=EVENTS, **request)
        assert answer.status_code == status


def test_a_head_gives_its_place_back(api: Api, alice: User, two: None) -> None:
    for _ in range(4):
        assert api.http.head("/users/me/export/", headers=alice.headers).status_code == 200


def test_an_export_too_many_is_refused(api: Api, alice: User, staff: User, two: None) -> None:
    with ExitStack() as going:
        for user in (alice, alice, staff, staff):
            going.enter_context(exports.one(UUID(user.id)))
        for path, user in (("/users/me/export/", alice), (f"/users/{alice.id}/export/", staff)):
            assert_problem(api.get(path, user), 429, "too-many-at-once")
    for _ in range(4):
        assert api.get("/users/me/export/", alice).status_code == 200
        assert api.get(f"/users/{alice.id}/export/", staff).status_code == 200
    assert exports._going[UUID(alice.id)] == exports._going[UUID(staff.id)] == 0


def test_each_user_has_as_many_as_any_other_and_nobody_is_remembered() -> None:
    some = AtOnce("things", 2)
    one, other = uuid4(), uuid4()
    with some.one(one), some.one(one):
        with pytest.raises(TooManyAtOnce), some.one(one):
            pass
        with some.one(other):
            pass
    with some.one(one):
        pass

    assert not some._going


async def parts() -> AsyncGenerator[bytes]:
    yield b"one"
    yield b"two"


async def closed(answer: Held) -> None:
    assert await anext(answer) == b"one"
    await answer.aclose()


async def closed_before_it_began(answer: Held) -> None:
    await answer.aclose()


async def read_to_its_end(answer: Held) -> None:
    assert [part async for part in answer] == [b"one", b"two"]


@pytest.mark.parametrize("end", [closed, closed_before_it_began, read_to_its_end])
def test_whatever_ends_an_answer_gives_back_what_was_held_for_it(
    end: Callable[[Held], Coroutine[Any, Any, None]],
) -> None:
    given_back: list[str] = []
    held = ExitStack()
    held.callback(given_back.append, "a place")
    answer = Held(parts(), held)

    asyncio.run(end(answer))

    assert given_back == ["a place"]
    del answer
    assert given_back == ["a place"]


def test_an_answer_that_nobody_began_gives_it_back_too() -> None:
    given_back: list[str] = []
    held = ExitStack()
    held.callback(given_back.append, "a place")

    answer = Held(parts(), held)
    assert not given_back
    del answer

    assert given_back == ["a place"]
