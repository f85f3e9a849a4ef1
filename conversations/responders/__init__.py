"""Where responses come from. A responder is one file here, one value of `RESPONDER`, one test."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from django.conf import settings

from conversations.domain import Usage


class ResponderFailed(Exception):
    """No response could be had; the message names the cause for the operator's log."""


class DeadlinePassed(ResponderFailed):
    """The time for the response is over."""


class Stopped(Exception):
    """The message has ended otherwise: it was cancelled, or its deadline has passed."""


@dataclass(frozen=True)
class Turn:
    """A message of before and its response."""

    message: str
    response: str


@dataclass(frozen=True)
class Prompt:
    """What a responder answers.

    `earlier` reads the conversation so far, newest first, for as long as it is asked for more.
    """

    message_id: UUID
    message: str
    seconds_left: float
    earlier: Callable[[], Iterator[Turn]]


class Reply(Protocol):
    """Where a responder puts what it has."""

    #: What the prompt is taken to have cost in tokens of the model; to be set before the first
    #: piece by a responder that sends more than the message.
    prompt_tokens: int

    def say(self, text: str) -> None:
        """Pass on the next piece, from any thread. Raises `Stopped`."""
        ...

    def on_stop(self, stop: Callable[[], object]) -> None:
        """Have `stop` called, from any thread, as soon as nobody wants the rest."""
        ...


class Responder(Protocol):
    """Makes a response, piece by piece."""

    #: What stands as `model` in the message.
    model: str
    #: Whether it waits on a network. The threads of one that does share the process's connections
    #: to the database; the threads of one that does not have their own, and are faster.
    waits: bool

    def respond(self, prompt: Prompt, reply: Reply) -> Usage | None:
        """Say the whole response, in a thread of a worker, within `prompt.seconds_left`.

        Returns what the model says it took, if it does. Raises `ResponderFailed` when no response
        can be had, and lets `Stopped` pass.
        """
        ...


class InstantResponder:
    """A responder that knows its response at once: it asks nobody, and takes no time to speak of.

    Its messages pass the workers in groups, without a lease (`conversations.instant`). One that
    computes for longer than some milliseconds is not of this kind.
    """

    model: str
    waits = False

    def answer(self, message: str) -> str:
        """The whole response."""
        raise NotImplementedError

    def respond(self, prompt: Prompt, reply: Reply) -> None:
        reply.say(self.answer(prompt.message))


def make_responder() -> Responder:
    """The responder that the settings name. Only its own module is imported."""
    return (OUR_OWN | registered)[settings.RESPONDER]()


def _dummy() -> Responder:
    from conversations.responders.dummy import DummyResponder

    return DummyResponder()


def _openai() -> Responder:
    from conversations.responders.openai import OpenAiResponder

    return OpenAiResponder()


OUR_OWN: dict[str, Callable[[], Responder]] = {"dummy": _dummy, "openai": _openai}
#: Responders that are not our own, by name; one of them may stand in for one of ours.
registered: dict[str, Callable[[], Responder]] = {}
