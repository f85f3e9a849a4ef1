"""Given / when / then for aggregates: facts go in, a decision is made, new facts come out."""

from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

from eventstore.domain import Aggregate, Created, Event, said

ALICE = UUID("a11ce000-0000-4000-8000-000000000001")
BOB = UUID("b0b00000-0000-4000-8000-000000000002")
HELLO = UUID("4e110000-0000-4000-8000-000000000003")
GIFT = UUID("61f70000-0000-4000-8000-000000000005")
TALK = UUID("7a1c0000-0000-4000-8000-000000000004")

TAggregate = TypeVar("TAggregate", bound=Aggregate)
Fact = tuple[type[Event], dict[str, Any]]


def fact(event_class: type[Event], **what: Any) -> Fact:
    """An event as a story tells it: its kind and what it says."""
    return event_class, what


def given(kind: type[TAggregate], *facts: Fact, stream_id: UUID = ALICE) -> TAggregate:
    """The aggregate that these facts make."""
    aggregate: Any = None
    for version, (event_class, what) in enumerate(facts, 1):
        event = event_class(originator_id=stream_id, originator_version=version, **what)
        aggregate = event.mutate(aggregate)
    assert isinstance(aggregate, kind)
    assert issubclass(facts[0][0], Created)
    return aggregate


def new_facts(aggregate: Aggregate) -> list[Fact]:
    """What the aggregate has decided since it was given."""
    events: Sequence[Any] = aggregate.collect_events()
    return [(type(event), said(event)) for event in events]
