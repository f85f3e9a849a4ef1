"""Prices and bounds: what is debited beforehand always covers what a message can cost."""

from fractions import Fraction

import pytest
from django.conf import settings as django_settings
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from conversations.domain import Usage, UsagePrices
from conversations.prices import (
    MARKER_TOKENS,
    context_room,
    tokens_estimated,
    tokens_max,
    usage_prices,
)

counts = st.integers(0, 10**7)
prices = st.builds(
    UsagePrices,
    prompt_per_1000=st.integers(0, 10**9),
    completion_per_1000=st.integers(0, 10**9),
    prompt_tokens_max=counts,
    completion_tokens_max=counts,
)
usages = st.builds(
    Usage, prompt_tokens=counts, completion_tokens=counts, estimated=st.just(value=False)
)
texts = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    """Nothing here needs the database that the other tests of this folder start with."""


@pytest.fixture
def by_usage(settings: Settings) -> Settings:
    settings.PRICING = "usage"
    settings.PROMPT_PRICE_PER_1000 = 10
    settings.COMPLETION_PRICE_PER_1000 = 40
    settings.CONTEXT_TOKENS_MAX = 1_000
    settings.RESPONSE_TOKENS_MAX = 500
    settings.SYSTEM_PROMPT = ""
    return settings


@given(prices, usages)
def test_a_cost_is_never_above_the_price(prices: UsagePrices, usage: Usage) -> None:
    assert 0 <= prices.cost(usage) <= prices.price


@given(prices, usages)
def test_a_price_covers_every_usage_within_its_bounds_to_less_than_a_token(
    prices: UsagePrices, usage: Usage
) -> None:
    within = Usage(
        prompt_tokens=min(usage.prompt_tokens, prices.prompt_tokens_max),
        completion_tokens=min(usage.completion_tokens, prices.completion_tokens_max),
        estimated=False,
    )
    exact = Fraction(
        within.prompt_tokens * prices.prompt_per_1000
        + within.completion_tokens * prices.completion_per_1000,
        1000,
    )

    assert 0 <= prices.cost(within) - exact < 1


@given(texts)
def test_an_estimate_is_never_above_the_bound(text: str) -> None:
    assert tokens_estimated(text) <= tokens_max(text)


def test_tokens_are_bounded_by_bytes_and_estimated_by_four_of_them() -> None:
    assert tokens_max("") == MARKER_TOKENS
    assert tokens_max("hello") == 5 + MARKER_TOKENS
    assert tokens_max("\N{GRINNING FACE}") == 4 + MARKER_TOKENS
    assert [tokens_estimated("x" * length) for length in (0, 1, 4, 5)] == [0, 1, 1, 2]
    assert tokens_estimated("\N{GRINNING FACE}") == 1


def test_a_flat_price_asks_for_no_bounds() -> None:
    assert usage_prices("hello") is None


def test_a_short_message_may_bring_as_much_conversation_as_the_context_holds(
    by_usage: Settings,
) -> None:
    assert usage_prices("hello") == UsagePrices(
        prompt_per_1000=10,
        completion_per_1000=40,
        prompt_tokens_max=1_000,
        completion_tokens_max=500,
    )
    assert context_room("hello") == 1_000 - 5 - MARKER_TOKENS


def test_a_system_prompt_takes_room_from_the_conversation(by_usage: Settings) -> None:
    by_usage.SYSTEM_PROMPT = "x" * 100

    assert context_room("hello") == 1_000 - 105 - 2 * MARKER_TOKENS


def test_a_message_longer_than_the_context_is_priced_in_full_and_goes_alone(
    by_usage: Settings,
) -> None:
    by_usage.SYSTEM_PROMPT = "x" * 100
    message = "\N{GRINNING FACE}" * 8_000

    prices = usage_prices(message)

    assert prices is not None
    assert prices.prompt_tokens_max == 32_000 + 100 + 2 * MARKER_TOKENS
    assert context_room(message) == 0


@given(message=texts, turns=st.lists(texts))
def test_what_fits_into_the_room_is_within_the_price(message: str, turns: list[str]) -> None:
    room, sent = context_room(message), [message]
    for turn in turns:
        room -= tokens_max(turn)
        if room < 0:
            break
        sent.append(turn)

    bound = max(django_settings.CONTEXT_TOKENS_MAX, tokens_max(message))
    assert sum(map(tokens_max, sent)) <= bound
