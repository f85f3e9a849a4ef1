"""What a rate limit says: so many times in so much time, as `10/5minutes`."""

import re
from dataclasses import dataclass

#: More in a window than anybody counts to, and longer than anybody waits.
RATE_TIMES_MAX = 1_000_000
RATE_SECONDS_MAX = 30 * 86_400

_UNITS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `times` in a window of `seconds`, which opens with the first of them."""

    times: int
    seconds: int


def parse_rate(text: str) -> Rate | None:
    """Read `60/hour`, `10/5minutes` or `off`, which is None; `ValueError` for all else."""
    if text.strip().lower() == "off":
        return None
    match = _RATE.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError("it is no rate")
    rate = Rate(int(match["times"]), int(match["number"] or 1) * _UNITS[match["unit"]])
    if not 1 <= rate.times <= RATE_TIMES_MAX:
        raise ValueError(f"{rate.times} is not between 1 and {RATE_TIMES_MAX} times")
    if not 1 <= rate.seconds <= RATE_SECONDS_MAX:
        raise ValueError("its time is not between a second and 30 days")
    return rate


_RATE = re.compile(
    r"(?P<times>[0-9]{1,9})/(?P<number>[0-9]{1,9})?(?P<unit>second|minute|hour|day)s?"
)
