"""Why a query has no answer."""

import re
from uuid import UUID

#: How an error begins that has a name.
_KIND = re.compile(r"[A-Z]\w{0,99}(?=:|\Z)", re.ASCII)


class ReadModelParked(Exception):
    """What was asked for waits behind an event that a projection could not handle."""

    def __init__(self, projection: str, stream_id: UUID, error: str) -> None:
        super().__init__(f"{projection} has parked stream {stream_id}: {error}")
        self.projection = projection
        self.stream_id = stream_id
        self.error = error

    @property
    def kind(self) -> str:
        """What kind of error it was: all that is told of it, since its text may quote anything."""
        return match[0] if (match := _KIND.match(self.error)) else "an error"


class UnknownCursor(Exception):
    """A page was asked for that begins at something which is not in the list."""

    def __init__(self, cursor: UUID) -> None:
        super().__init__(f"{cursor} is not in the list")
        self.cursor = cursor
