"""What is stored, read without trust in it: for checks that must not stop at what they look for."""

from typing import Any
from uuid import UUID

from eventsourcing.domain import OriginatorIDError, OriginatorVersionError

from eventstore.mapper import UnknownTopic
from eventstore.reading import as_uuid, id_parameter

#: Differences of one kind that are named at most.
DIFFERENCES_MAX = 1_000

#: What making or applying an event raises whose row was changed behind our back.
UNREADABLE = (
    *(AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError),
    *(OriginatorIDError, OriginatorVersionError, UnknownTopic),
)


def stored_id(stored: Any) -> UUID | None:
    """The id in a column, None for what no query by that id would find."""
    try:
        value = as_uuid(stored)
    except (AttributeError, TypeError, ValueError):
        return None
    return value if id_parameter(value) == stored else None


def bounded(lines: list[str], kind: str) -> list[str]:
    """The first lines of a kind, and a word if there are more."""
    if len(lines) > DIFFERENCES_MAX:
        return [*lines[:DIFFERENCES_MAX], f"{kind}: and more"]
    return lines
