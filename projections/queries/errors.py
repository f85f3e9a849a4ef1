"""Why a query has no answer."""

from uuid import UUID


class ReadModelParked(Exception):
    """What was asked for waits behind an event that a projection could not handle."""

    def __init__(self, projection: str, stream_id: UUID, error: str) -> None:
        super().__init__(f"{projection} has parked stream {stream_id}: {error}")
        self.projection = projection
        self.stream_id = stream_id
        self.error = error


class UnknownCursor(Exception):
    """A page was asked for that begins at something which is not in the list."""

    def __init__(self, cursor: UUID) -> None:
        super().__init__(f"{cursor} is not in the list")
        self.cursor = cursor
