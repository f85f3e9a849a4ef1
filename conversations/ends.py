"""How a message ended, by the log: the second event of its stream, if there is one."""

from dataclasses import dataclass
from uuid import UUID

from eventstore.keys import decrypt_all
from eventstore.reading import read_stream


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a message: `status` is `done`, with a response, or `failed`, with a reason."""

    position: int
    status: str
    response: str | None = None
    reason: str | None = None


def end_of(message_id: UUID) -> Ended | None:
    """The end of a message; None while it is pending or unknown."""
    events = read_stream(message_id)
    if len(events) < 2:
        return None
    end = events[1]
    if "reason" in end.data:
        return Ended(end.position, "failed", reason=end.data["reason"])
    return Ended(end.position, "done", response=decrypt_all([end.data["response"]])[0])


def end_position(message_id: UUID) -> int | None:
    """The position of the event that ended a message; None while it is pending or unknown."""
    events = read_stream(message_id)
    return events[1].position if len(events) > 1 else None
