"""The built-in bot: it knows five sentences and needs nobody."""

from conversations.responders import InstantResponder

RESPONSES = {
    "hello": "Hi there! How can I help you today?",
    "how are you?": "I'm just a bot, but I'm here to assist you! How can I help?",
    "what's your name?": "I'm ChatBot, your virtual assistant.",
    "tell me a joke": "Why don't scientists trust atoms? Because they make up everything!",
    "bye": "Goodbye! Have a great day!",
}
UNKNOWN = "I'm not sure how to respond to that. Can you please ask something else?"


def dummy_chatbot_response(message: str) -> str:
    """The bot's answer to a message, matched as a whole without regard to case."""
    return RESPONSES.get(message.lower(), UNKNOWN)


class DummyResponder(InstantResponder):
    """Answers at once, in one piece."""

    model = "dummy"

    def answer(self, message: str) -> str:
        return dummy_chatbot_response(message)
