"""What a debit costs before it reaches the database: ours against the library's own classes.

python -m benchmarks.domain_cost
"""

import copy
import os
import timeit
from collections.abc import Callable
from uuid import UUID, uuid4

import django
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

CALLS = 20_000


class LibraryAccount(Aggregate):
    """The same decision, as the library's documentation would write it."""

    def __init__(self) -> None:
        self.tokens = 0

    @event("Debited")
    def debit(self, amount: int, message_id: UUID) -> None:
        self.tokens -= amount


def microseconds(call: Callable[[], object]) -> float:
    """The best of five runs, a call."""
    return min(timeit.repeat(call, number=CALLS, repeat=5)) / CALLS * 1e6


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from accounts.domain import Account
    from eventstore.mapper import FieldMapper

    message_id = uuid4()
    library = LibraryAccount()
    library_mapper = Application[UUID]().mapper
    ours = Account.register(uuid4(), username="alice", default_conversation_id=uuid4(), grant=10**9)
    our_mapper = FieldMapper(transcoder=None)  # type: ignore[arg-type]  # it brings its own

    def debited(account: LibraryAccount | Account) -> object:
        account.debit(100, message_id=message_id)
        return account.pending_events[-1]

    library_event = debited(copy.deepcopy(library))
    our_event = debited(ours.copy())
    stored = our_mapper.to_stored_event(our_event)
    rows = {
        "copy and debit, the library's": lambda: debited(copy.deepcopy(library)),
        "copy and debit, ours": lambda: debited(ours.copy()),
        "encode the event, the library's": lambda: library_mapper.to_stored_event(library_event),  # type: ignore[arg-type]  # an event
        "encode the event, ours": lambda: our_mapper.to_stored_event(our_event),
        "decode the event, ours": lambda: our_mapper.to_domain_event(stored),
    }
    for what, call in rows.items():
        print(f"{what:32} {microseconds(call):6.1f} µs")


if __name__ == "__main__":
    main()
