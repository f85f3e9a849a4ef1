"""A message as an event stream (WHATWG HTML, section 9.2): the response as it is generated.

    id: 812-9
    event: delta
    data: {"text": "there!"}

An id is the attempt and the number of its characters so far. A client that comes back with its last
id gets exactly the rest; one whose attempt was given up gets `restart` and the text from the start.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from conversations.ends import Ended
from conversations.replies import following
from conversations.reply_streams import End, Transcript
from conversations.showing import SHOWING
from projections.progress import shown

#: A comment after so much silence keeps proxies from closing the connection.
HEARTBEAT_SECONDS = 15.0
_HEARTBEAT = b": still there\n\n"


class MalformedEventId(Exception):
    """A `Last-Event-ID` that no event of ours ever had."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client stands: so many characters of an attempt, and whether it has seen the end."""

    attempt: int = 0
    characters: int = 0
    end: bool = False

    def __str__(self) -> str:
        return f"{self.attempt}-{self.characters}{'-end' if self.end else ''}"


def parse_event_id(header: str | None) -> Place:
    """Read a `Last-Event-ID`; without one the client stands at the start."""
    if not header:
        return Place()
    match = _EVENT_ID.fullmatch(header)
    if match is None:
        raise MalformedEventId
    return Place(int(match["attempt"]), int(match["characters"]), bool(match["end"]))


def has_all(place: Place, ended: Ended) -> bool:
    """Whether a client has seen a message to its end."""
    if ended.response is None:
        # The text is void, wherever the client stood in it.
        return place.end
    return place == Place(ended.attempt, len(ended.response), end=True)


async def events_of_ended(message_id: UUID, place: Place, ended: Ended) -> AsyncGenerator[bytes]:
    """What a client at `place` has yet to get of a message that has ended."""
    yield _Client(place).end(message_id, ended)


async def events(message_id: UUID, place: Place) -> AsyncGenerator[bytes]:
    """What a client at `place` has yet to get: the text as it comes, and the one end."""
    client, transcript = _Client(place), Transcript()
    now = asyncio.get_running_loop().time
    beat_at = now() + HEARTBEAT_SECONDS
    async with following(message_id) as said:
        while True:
            try:
                async with asyncio.timeout_at(beat_at):
                    item = await said.get()
            except TimeoutError:
                yield _HEARTBEAT
                beat_at = now() + HEARTBEAT_SECONDS
                continue
            # What has gathered, because the client is slow or has just come, goes out as one.
            while not isinstance(item, End) and not said.empty():
                transcript.take(item)
                item = said.get_nowait()
            if isinstance(item, End):
                break
            transcript.take(item)
            if news := client.follow(transcript):
                yield news
                beat_at = now() + HEARTBEAT_SECONDS
    await shown(item.ended.position, *SHOWING)
    yield client.end(message_id, item.ended)


class _Client:
    """What a client has seen, and the events that bring it further."""

    def __init__(self, place: Place) -> None:
        self._attempt = place.attempt
        self._characters = place.characters

    def follow(self, transcript: Transcript) -> bytes:
        """Bring the client to where the transcript is."""
        if transcript.attempt < self._attempt:
            # The stream was lost and has yet to say as much as the client knows.
            return b""
        events = self._change_to(transcript.attempt)
        if transcript.characters > self._characters:
            events += self._delta(transcript.delta(self._characters).text)
        return events

    def end(self, message_id: UUID, ended: Ended) -> bytes:
        """The last event, and before it whatever the client lacks of the text."""
        if ended.status == "failed":
            said = {"id": str(message_id), "reason": ended.reason, "refunded": ended.refunded}
            return self._event("failed", said, end=True)
        said = {"id": str(message_id), "response": ended.response, "cost": ended.cost}
        if ended.response is None:
            # There is no text: what the client has seen of one is void, and nothing follows.
            return self._event(ended.status, said, end=True)
        events = self._change_to(ended.attempt)
        if self._characters > len(ended.response):
            # It has seen more than could be kept.
            events += self._restart()
        if len(ended.response) > self._characters:
            events += self._delta(ended.response[self._characters :])
        return events + self._event(ended.status, said, end=True)

    def _change_to(self, attempt: int) -> bytes:
        had, self._attempt = self._attempt, attempt
        return self._restart() if had and had != attempt else b""

    def _delta(self, text: str) -> bytes:
        self._characters += len(text)
        return self._event("delta", {"text": text})

    def _restart(self) -> bytes:
        self._characters = 0
        return self._event("restart", {})

    def _event(self, name: str, said: dict[str, Any], *, end: bool = False) -> bytes:
        place = Place(self._attempt, self._characters, end)
        data = _encode(said)
        for character, escaped in _ESCAPED:
            data = data.replace(character, escaped)
        return f"id: {place}\nevent: {name}\ndata: ".encode() + data + b"\n\n"


_encode = msgspec.json.Encoder().encode
#: What neither JSON nor an event stream takes for the end of a line, but many a client's library.
_ESCAPED = [(chr(code).encode(), b"\\u%04x" % code) for code in (0x85, 0x2028, 0x2029)]
_EVENT_ID = re.compile(r"(?P<attempt>[0-9]{1,15})-(?P<characters>[0-9]{1,9})(?P<end>-end)?")
