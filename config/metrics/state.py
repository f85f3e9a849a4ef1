"""How things stand, by a look at the database and at the broker when somebody asks."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

import conversations.actors  # noqa: F401  (the broker has to know its queue)
from config.metrics.reading import Reading
from config.metrics.standing import Standing, read_standing
from conversations.broker import broker
from conversations.embedded_broker import Depth
from eventstore.database import guarded

Seen = TypeVar("Seen", Standing, Depth)

#: How long a look at either may take; Prometheus gives a scrape ten seconds.
LOOK_SECONDS_MAX = 3.0


class State(Collector):
    """The gauges that only a look at the database or at the broker can fill.

    What does not answer has no figures then, rather than old ones.
    """

    def __init__(self) -> None:
        self._database = Reading(
            "database", lambda: guarded(read_standing), seconds_max=LOOK_SECONDS_MAX
        )
        self._broker = Reading("broker", broker.depth, seconds_max=LOOK_SECONDS_MAX)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Name the gauges, for a registry that must not look."""
        return _gauges(None, None)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Look at both at once."""
        database, depth = self._database.begin(), self._broker.begin()
        return _gauges(self._database.result(database), self._broker.result(depth))

    def close(self) -> None:
        """Look no more."""
        self._database.close()
        self._broker.close()


@dataclass(frozen=True, slots=True)
class _Gauge(Generic[Seen]):
    """A gauge, and how it is read off: one figure, or one for each value of a label."""

    name: str
    says: str
    read: Callable[[Seen], float | Mapping[str, float]]
    label: str = ""

    def family(self, seen: Seen | None) -> GaugeMetricFamily:
        labels = [self.label] if self.label else []
        family = GaugeMetricFamily(f"chatledger_{self.name}", self.says, labels=labels)
        if seen is not None:
            read = self.read(seen)
            for value, figure in read.items() if isinstance(read, Mapping) else [("", read)]:
                family.add_metric([value] if labels else [], figure)
        return family


_BY_THE_BROKER: tuple[_Gauge[Depth], ...] = (
    _Gauge(
        "broker_messages",
        "Message ids in the broker: those that wait, and those that a worker has fetched.",
        lambda depth: {"queued": depth.queued, "fetched": depth.fetched},
        label="state",
    ),
)
_BY_THE_DATABASE: tuple[_Gauge[Standing], ...] = (
    _Gauge("log_position", "The position of the last event.", lambda now: now.position),
    _Gauge(
        "follower_lag_events",
        "Events that a follower has not dealt with.",
        lambda now: {name: lag.events for name, lag in now.lags.items()},
        label="follower",
    ),
    _Gauge(
        "follower_lag_seconds",
        "The age of the oldest event that a follower has not dealt with.",
        lambda now: {name: lag.seconds for name, lag in now.lags.items()},
        label="follower",
    ),
    _Gauge(
        "parked_events",
        "Events that a read model could not handle, and those that wait behind them.",
        lambda now: now.parked,
        label="projection",
    ),
    _Gauge(
        "pending_messages",
        "Messages that have not ended, by age.",
        lambda now: now.pending,
        label="age",
    ),
    _Gauge(
        "pending_oldest_seconds",
        "The age of the oldest message that has not ended.",
        lambda now: now.pending_oldest_seconds,
    ),
    _Gauge(
        "pending_overdue_messages",
        "Messages that have not ended although their deadline passed more than 10 s ago.",
        lambda now: now.overdue,
    ),
    _Gauge("sealed_position", "The last position that is sealed.", lambda now: now.sealed_position),
    _Gauge(
        "seal_age_seconds",
        "The age of the newest seal; it grows while nothing is appended.",
        lambda now: now.seal_age_seconds,
    ),
    _Gauge(
        "destroyed_keys_waiting",
        "Destroyed keys whose bytes have not been cleaned out of the database's files.",
        lambda now: now.destroyed_keys,
    ),
    _Gauge(
        "destroyed_keys_oldest_seconds",
        "For how long the oldest of them has been destroyed.",
        lambda now: now.destroyed_oldest_seconds,
    ),
)


def _gauges(now: Standing | None, depth: Depth | None) -> Iterator[GaugeMetricFamily]:
    up = GaugeMetricFamily(
        "chatledger_service_up", "Whether it answered the look of this scrape.", labels=["service"]
    )
    up.add_metric(["database"], now is not None)
    up.add_metric(["broker"], depth is not None)
    yield up
    for of_the_database in _BY_THE_DATABASE:
        yield of_the_database.family(now)
    for of_the_broker in _BY_THE_BROKER:
        yield of_the_broker.family(depth)
