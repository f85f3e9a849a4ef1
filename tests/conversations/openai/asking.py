"""Asking the openai responder, and what is heard of it."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from uuid import UUID

import pytest

from conversations.domain import Usage
from conversations.responders import Prompt, Reply, ResponderFailed, Stopped, Turn, upstream
from conversations.responders.openai import OpenAiResponder
from devstack.model_scripts import chunk
from devstack.model_server import ModelServer

MESSAGE_ID = UUID("4b1d7a3e-7c52-4b7e-9d0e-1f2a3b4c5d6e")
KEY = "sk-canary-0123456789"
FINISH = chunk({"index": 0, "delta": {}, "finish_reason": "stop"})
#: A hang-up has to reach the upstream within this.
PROMPTLY_SECONDS = 1.0


def forget_the_upstream() -> None:
    upstream.upstream().stop()
    upstream.upstream.forget()


@contextmanager
def another_upstream() -> Iterator[None]:
    """Have the upstream made anew from settings that were changed."""
    forget_the_upstream()
    try:
        yield
    finally:
        forget_the_upstream()


class Heard:
    """A reply that keeps what is said."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.pieces: list[str] = []
        self.times: list[float] = []
        self.stopped_at: float | None = None
        self._stops: list[Callable[[], object]] = []

    def say(self, text: str) -> None:
        if self.stopped_at is not None:
            raise Stopped
        text.encode()
        self.pieces.append(text)
        self.times.append(time.monotonic())

    def on_stop(self, stop: Callable[[], object]) -> None:
        self._stops.append(stop)

    def stop(self, *, by_call: bool = True) -> None:
        self.stopped_at = time.monotonic()
        for stop in self._stops * by_call:
            stop()


def ask(
    message: str = "hello",
    reply: Reply | None = None,
    *,
    seconds: float = 10.0,
    earlier: Callable[[], Iterator[Turn]] = lambda: iter(()),
) -> Usage | None:
    prompt = Prompt(MESSAGE_ID, message, seconds, earlier)
    return OpenAiResponder().respond(prompt, reply or Heard())


def heard(message: str = "hello", *, seconds: float = 10.0) -> list[str]:
    reply = Heard()
    ask(message, reply, seconds=seconds)
    return reply.pieces


def cause(message: str = "hello", *, seconds: float = 10.0) -> str:
    """Why no response could be had."""
    with pytest.raises(ResponderFailed) as failed:
        ask(message, seconds=seconds)
    text = str(failed.value)
    assert 0 < len(text) <= 500
    assert text.isprintable()
    return text


@contextmanager
def asking(reply: Heard) -> Iterator[Future[Usage | None]]:
    with ThreadPoolExecutor(1) as worker:
        yield worker.submit(ask, "hello", reply)


def hung_up_at(server: ModelServer) -> float:
    """When the upstream saw the connection of the latest request close, before it was through."""
    asked = server.requests[-1]
    server.wait_for(lambda: asked.closed_at is not None)
    assert asked.client_hung_up
    assert asked.closed_at is not None
    return asked.closed_at
