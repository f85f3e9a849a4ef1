"""Who or what caused an event: the part of its metadata that a command brings along."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True)
class Cause:
    """The metadata of everything that one command appends.

    `actor` is `user:<id>`, `staff:<id>`, `worker`, `sweeper`, `shell` or `anonymous`; `request_id`
    the id the server made for the request; `causation_id` the event that a component reacted to.
    """

    actor: str
    request_id: str = ""
    causation_id: UUID | None = None
