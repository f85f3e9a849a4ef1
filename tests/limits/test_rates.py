"""What a rate limit's setting says."""

import pytest

from accounts.rates import Rate, parse_rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/5minutes", Rate(10, 300)),
        ("60/hour", Rate(60, 3_600)),
        ("600/minute", Rate(600, 60)),
        ("1/second", Rate(1, 1)),
        ("5/2Days", Rate(5, 172_800)),
        (" 7/30seconds ", Rate(7, 30)),
    ],
)
def test_a_rate_is_a_number_in_a_time(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["off", "OFF"])
def test_off_is_no_rate(text: str) -> None:
    assert parse_rate(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "10", "10/", "ten/minute", "-1/minute", "0/minute", "1/0minutes", "1/fortnight"),
        *("1.5/minute", "1000001/minute", "1/31days", "10 per minute", "10/minute/5", "٣/minute"),
    ],
)
def test_all_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"rate|times|time"):
        parse_rate(text)
