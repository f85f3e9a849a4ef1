"""How a message ended: what the log says, and what whoever waits for it is told."""

from dataclasses import dataclass
from uuid import UUID

from eventstore.keys import decrypt_all
from eventstore.reading import read_stream


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a message: `status` is `done`, with a response, or `failed`, with a reason."""

    position: int
    status: str
    cost: int
    response: str | None = None
    reason: str | None = None


def end_of(message_id: UUID) -> Ended | None:
    """The end of a message by the log; None while it is pending or unknown."""
    events = read_stream(message_id)
    if len(events) < 2:
        return None
    end = events[1]
    if "reason" in end.data:
        return Ended(end.position, "failed", end.data["cost"], reason=end.data["reason"])
    response = decrypt_all([end.data["response"]])[0]
    return Ended(end.position, "done", end.data["cost"], response=response)
