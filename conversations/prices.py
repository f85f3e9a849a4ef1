"""What a message costs, and how many tokens of the model it can take: bounds known beforehand.

In this file a token is the model's, unless it says "of balance". The bounds hold for every
tokenizer that works on bytes, so nobody has to know which one an upstream uses.
"""

from django.conf import settings

from conversations.domain import Usage, UsagePrices

#: Tokens that a model's template puts around one message of a conversation; templates take 3 to 10.
MARKER_TOKENS = 16
#: How long a token is taken to be where the upstream does not count.
BYTES_PER_TOKEN = 4


def usage_prices(message: str) -> UsagePrices | None:
    """The prices of a message by usage, with the most that it can use; None when it is flat."""
    if settings.PRICING == "message":
        return None
    return UsagePrices(
        prompt_per_1000=settings.PROMPT_PRICE_PER_1000,
        completion_per_1000=settings.COMPLETION_PRICE_PER_1000,
        prompt_tokens_max=max(settings.CONTEXT_TOKENS_MAX, _always_sent(message)),
        completion_tokens_max=settings.RESPONSE_TOKENS_MAX,
    )


def context_room(message: str) -> int:
    """What `CONTEXT_TOKENS_MAX` leaves for earlier turns, in tokens counted by `tokens_max`."""
    return max(0, settings.CONTEXT_TOKENS_MAX - _always_sent(message))


def estimated_usage(prompt_tokens: int, response: str) -> Usage:
    """What a response is taken to have used, where the model did not say."""
    completion_tokens = tokens_estimated(response)
    return Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, estimated=True)


def tokens_max(text: str) -> int:
    """An upper bound on the tokens of a text sent as one message of a conversation.

    A tokenizer that works on bytes begins with a token for each byte and then only merges, so it
    never makes more tokens than there are UTF-8 bytes. The markers around the message are added.
    """
    return len(text.encode()) + MARKER_TOKENS


def tokens_estimated(text: str) -> int:
    """The stated estimate of a text's tokens: one for every `BYTES_PER_TOKEN` bytes, rounded up."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def _always_sent(message: str) -> int:
    system_prompt: str = settings.SYSTEM_PROMPT
    return tokens_max(message) + (tokens_max(system_prompt) if system_prompt else 0)
