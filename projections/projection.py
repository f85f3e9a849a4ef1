"""What a projection is: a class with a name, a version, a table, and one method an event.

    class Balances(Projection):
        name = "balances"
        version = 1
        table = Table(Balance)

        @on("chatledger.accounts.TokensDebited")
        def debited(self, event: RecordedEvent) -> None:
            self.deltas[event.stream_id] -= event.data["amount"]

An instance folds one batch of events in memory and then says what to write. It never calls the
domain, the network or the clock, and never decrypts. Raise `version` when the same events shall
give other rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, TypeVar

from eventstore.encrypted import EncryptedText
from eventstore.reading import RecordedEvent
from projections.table import Table, Write

#: Events that share a transaction at most.
BATCH_EVENTS_MAX = 500

#: What ends every row of a user's, in every read model.
ERASED = "chatledger.accounts.UserErased"

Handler = TypeVar("Handler", bound=Callable[..., None])


def on(*topics: str) -> Callable[[Handler], Handler]:
    """Let a projection's method handle the events of these topics."""

    def mark(method: Handler) -> Handler:
        method.__dict__["topics"] = topics
        return method

    return mark


class Projection(ABC):
    """A fold of a batch of events into rows; what no method handles leaves no trace."""

    name: ClassVar[str]
    version: ClassVar[int]
    table: ClassVar[Table]
    handlers: ClassVar[dict[str, Callable[[Any, RecordedEvent], None]]]

    def __init_subclass__(cls) -> None:
        cls.handlers = {
            topic: method
            for method in vars(cls).values()
            for topic in getattr(method, "topics", ())
        }

    @abstractmethod
    def writes(self) -> Iterator[Write]:
        """The rows that the batch comes to, in the order in which they shall be written."""

    @classmethod
    def is_void(cls, event: RecordedEvent) -> bool:
        """Whether an event of another stream has undone this one; asked of parked ones at a retry.

        A parked stream waits while the others go on, so what ends its rows may have come before.
        """
        return False

    @classmethod
    def fold(cls, events: Iterable[RecordedEvent]) -> list[Write]:
        """What a batch of events comes to."""
        projection, handlers = cls(), cls.handlers
        for event in events:
            if handler := handlers.get(event.topic):
                handler(projection, event)
        return [write for write in projection.writes() if write.rows]


def packed(text: EncryptedText | None) -> bytes | None:
    """Personal text as a read model keeps it: still encrypted."""
    return None if text is None else text.pack()
