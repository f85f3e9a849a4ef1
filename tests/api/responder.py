"""A responder that does what a message says."""

import threading
from collections.abc import Iterator
from typing import ClassVar

from conversations.responders import Prompt, ResponderFailed
from conversations.responders.dummy import dummy_chatbot_response

HOLD_SECONDS_MAX = 30


class ScriptedResponder:
    """Fails on "fail", waits on "hold…" until it is released, and is the dummy otherwise."""

    model = "scripted"
    released: ClassVar[threading.Event] = threading.Event()

    def respond(self, prompt: Prompt) -> Iterator[str]:
        if prompt.message == "fail":
            raise ResponderFailed("it was told to")
        if prompt.message.startswith("hold"):
            assert self.released.wait(HOLD_SECONDS_MAX)
        yield dummy_chatbot_response(prompt.message)


ScriptedResponder.released.set()
