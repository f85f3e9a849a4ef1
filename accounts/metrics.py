"""What accounts count: who is held back, and what waits for a hash."""

from prometheus_client import Counter, Gauge

#: The limits that refuse requests; each has a series from the start.
LIMITS = ("login", "register", "send", "streams", "exports", "passwords")

HASHES_WAITING = Gauge(
    "chatledger_hashes_waiting", "Requests that wait for a thread to hash their password."
)
REFUSALS = Counter(
    "chatledger_rate_limit_refusals", "Requests refused with 429, by limit.", ["limit"]
)
for _limit in LIMITS:
    REFUSALS.labels(_limit)


def refused(limit: str) -> None:
    """Count a request that a limit has refused; `limit` is a name from the code."""
    REFUSALS.labels(limit).inc()
