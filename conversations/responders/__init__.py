"""Where responses come from. A responder is one file here, one value of `RESPONDER`, one test."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from django.conf import settings


class ResponderFailed(Exception):
    """No response could be had; the message names the cause for the operator's log."""


@dataclass(frozen=True)
class Prompt:
    """What a responder answers."""

    message_id: UUID
    message: str


class Responder(Protocol):
    """Makes a response, piece by piece."""

    #: What stands as `model` in the message.
    model: str

    def respond(self, prompt: Prompt) -> Iterator[str]:
        """Yield the response's text as it comes; raise `ResponderFailed` when none can be had."""
        ...


def make_responder() -> Responder:
    """The responder that the settings name."""
    from conversations.responders.dummy import DummyResponder

    responders: dict[str, type[Responder]] = {"dummy": DummyResponder, **registered}
    return responders[settings.RESPONDER]()


#: Responders that are not our own, by name.
registered: dict[str, type[Responder]] = {}
