"""The figures on the page about prices are those that the code comes to."""

import re
from fractions import Fraction
from pathlib import Path

import pytest
from pytest_django import Settings

from config.environment import Environment
from conversations.domain import Usage, UsagePrices
from conversations.generation import ATTEMPTS_MAX
from conversations.prices import BYTES_PER_TOKEN, MARKER_TOKENS, tokens_estimated, usage_prices

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "prices.md").read_text()
MESSAGE = "Tell me about ledgers."
EMOJI = "\N{GRINNING FACE}" * 8_000
FORMULA = re.compile(
    r"\| (?P<what>[^|]*) \| "
    r"\((?P<prompt>\S+) \N{MULTIPLICATION SIGN} (?P<prompt_price>\S+) \+ "
    r"(?P<completion>\S+) \N{MULTIPLICATION SIGN} (?P<completion_price>\S+)\) "
    r"/ 1,000 = (?P<exact>\S+) \| (?P<tokens>\S+) \|"
)
SUM = re.compile(
    r"\| (?P<left>[\d,]+) (?P<sign>[\N{MINUS SIGN}+]) (?P<right>[\d,]+) \| (?P<tokens>[\d,]+) \|"
)


def number(text: str) -> int:
    return int(text.replace(",", ""))


@pytest.fixture(autouse=True)
def as_in_the_example(settings: Settings) -> None:
    settings.PRICING = "usage"
    settings.PROMPT_PRICE_PER_1000 = 30
    settings.COMPLETION_PRICE_PER_1000 = 120
    settings.SYSTEM_PROMPT = ""
    for name in ("CONTEXT_TOKENS_MAX", "RESPONSE_TOKENS_MAX"):
        setattr(settings, name, Environment.model_fields[name.lower()].default)


def priced(message: str) -> UsagePrices:
    prices = usage_prices(message)
    assert prices is not None
    return prices


def rows() -> list[tuple[str, Usage, UsagePrices, Fraction, int]]:
    return [
        (
            row["what"],
            Usage(
                prompt_tokens=number(row["prompt"]),
                completion_tokens=number(row["completion"]),
                estimated=False,
            ),
            UsagePrices(
                prompt_per_1000=number(row["prompt_price"]),
                completion_per_1000=number(row["completion_price"]),
                prompt_tokens_max=number(row["prompt"]),
                completion_tokens_max=number(row["completion"]),
            ),
            Fraction(row["exact"].replace(",", "")),
            number(row["tokens"]),
        )
        for row in FORMULA.finditer(PAGE)
    ]


def test_what_is_debited_is_the_worst_case() -> None:
    debited = [(prices, tokens) for what, _, prices, _, tokens in rows() if what == "debited"]

    assert debited == [
        (priced(MESSAGE), priced(MESSAGE).price),
        (priced(EMOJI), priced(EMOJI).price),
    ]


def test_what_it_cost_is_what_the_domain_says() -> None:
    costs = [(usage, tokens) for what, usage, *_, tokens in rows() if what != "debited"]

    assert len(costs) == 3
    assert [priced(MESSAGE).cost(usage) for usage, _ in costs] == [tokens for _, tokens in costs]


def test_the_exact_figures_are_exact() -> None:
    for _, usage, prices, exact, _ in rows():
        thousandths = (
            usage.prompt_tokens * prices.prompt_per_1000
            + usage.completion_tokens * prices.completion_per_1000
        )
        assert Fraction(thousandths, 1_000) == exact


def test_the_sums_are_right_and_follow_from_one_another() -> None:
    sums = list(SUM.finditer(PAGE))
    assert len(sums) == 5
    for row in sums:
        sign = 1 if row["sign"] == "+" else -1
        assert number(row["left"]) + sign * number(row["right"]) == number(row["tokens"])
    price = priced(MESSAGE).price
    costs = [tokens for what, *_, tokens in rows() if what != "debited"]
    refunds = [price - cost for cost in costs]
    assert [number(row["tokens"]) for row in sums if number(row["left"]) == price] == refunds


def test_the_estimate_is_the_one_on_the_page() -> None:
    said = (
        f"after 100 bytes of text: the message's {len(MESSAGE.encode())} bytes count as "
        f"{tokens_estimated(MESSAGE)}, the text as {tokens_estimated('x' * 100)}; cost"
    )
    assert said in PAGE
    assert f"one of the model's\n  tokens for every {BYTES_PER_TOKEN} UTF-8 bytes" in PAGE
    assert f"its UTF-8 bytes and {MARKER_TOKENS} for the markers" in PAGE


def test_what_switches_usage_prices_on_are_the_prices_of_the_example() -> None:
    exported = dict(re.findall(r"(?m)^    export (\w+)=(\S+)$", PAGE))
    assert exported == {
        "PRICING": "usage",
        "PROMPT_PRICE_PER_1000": "30",
        "COMPLETION_PRICE_PER_1000": "120",
    }


def test_every_reason_of_a_refund_is_on_the_page() -> None:
    events = (Path(__file__).resolve().parent.parent.parent / "docs" / "events.md").read_text()
    failures = re.findall(r"`(\w+)`", events[events.index("\n`reason` is") :].partition(".")[0])[1:]
    named = PAGE[PAGE.index("`TokensRefunded.amount`") :].partition("\n")[0]
    assert set(re.findall(r"`([a-z_]+)`", named)) == {"reason", "unused", "cancelled", *failures}
    assert ATTEMPTS_MAX == 2, "the page says what happens when a worker dies twice"
