"""A responder that does what a message says."""

import threading
from typing import ClassVar

from conversations.responders import Prompt, Reply, ResponderFailed
from conversations.responders.dummy import dummy_chatbot_response

HOLD_SECONDS_MAX = 30


class ScriptedResponder:
    """Does what a message says: "fail", "hold…", "echo …", "tell …" word by word; else the dummy.

    A message that begins with "hold" gets no response until it is released, "half…" gets one word
    before that.
    """

    model = "scripted"
    waits = False
    released: ClassVar[threading.Event] = threading.Event()

    def respond(self, prompt: Prompt, reply: Reply) -> None:
        if prompt.message == "fail":
            raise ResponderFailed("it was told to")
        if prompt.message.startswith("half"):
            reply.say("Once ")
        if prompt.message.startswith(("hold", "half")):
            assert self.released.wait(HOLD_SECONDS_MAX)
        if prompt.message.startswith("echo "):
            reply.say(prompt.message.removeprefix("echo "))
            return
        if prompt.message.startswith("tell "):
            for word in prompt.message.split()[1:]:
                reply.say(f"{word} ")
            return
        reply.say(dummy_chatbot_response(prompt.message))


ScriptedResponder.released.set()
