"""Everything that is held about a user, out of the log, as one JSON object in pieces.

`user`, their `conversations` and `messages` as they can be read, and all `events` of theirs as they
were recorded, with their text, stream by stream; `position` is where the log ended then. Nothing
here depends on the read models. Beside this the service holds a hash of the password, which says
nothing about the user.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

import msgspec

from accounts.commands import UserNotFound, load_account
from accounts.models import Credential
from eventstore.cause import Cause
from eventstore.clock import to_datetime
from eventstore.decisions import decide
from eventstore.encrypted import EncryptedText
from eventstore.keys import decrypt_all
from eventstore.log import event_log, one_at_a_time, transaction_with_log
from eventstore.models import DataKey
from eventstore.reading import (
    RecordedEvent,
    clock_now,
    max_position,
    read_stream_after,
    read_streams,
)
from projections.history import CANCELLED, DONE, FAILED, PENDING

_ACCOUNTS, _CONVERSATIONS = "chatledger.accounts.", "chatledger.conversations."
_STATUS = {
    f"{_CONVERSATIONS}ResponseGenerated": DONE,
    f"{_CONVERSATIONS}ResponseFailed": FAILED,
    f"{_CONVERSATIONS}ResponseCancelled": CANCELLED,
}
_SIGNS = {"TokensGranted": 1, "TokensDebited": -1, "TokensRefunded": 1}

Page = list[RecordedEvent]

#: Events of the account that one page begins with; it may have as many messages with their text.
PAGE_EVENTS = 50
#: What is sent at a time, so that a slow client is seen to take something.
PIECE_BYTES_MAX = 64 * 1024


def note_export(user_id: UUID, cause: Cause) -> None:
    """Record that staff export a user's data, before they get it. Raises `UserNotFound`."""

    def decision(*, fresh: bool) -> None:
        account = load_account(user_id, fresh=fresh)
        account.note_export()
        with transaction_with_log():
            event_log().append(account, cause=cause)

    with one_at_a_time(user_id):
        decide(decision)


def export_user(user_id: UUID) -> Iterator[bytes]:
    """The JSON object in pieces of at most `PIECE_BYTES_MAX`, all of one instant of the log.

    Raises `UserNotFound` at once.
    """
    credential = Credential.objects.filter(user_id=user_id).first()
    if credential is None:
        raise UserNotFound(str(user_id))
    return _pieces(_Export(credential).parts())


def _pieces(parts: Iterator[bytes]) -> Iterator[bytes]:
    for part in parts:
        for start in range(0, len(part), PIECE_BYTES_MAX):
            yield part[start : start + PIECE_BYTES_MAX]


class _Export:
    """What the log holds of a user up to where it ends now, a page of events at a time."""

    def __init__(self, credential: Credential) -> None:
        self.credential = credential
        self.user_id = credential.user_id
        self.upto = max_position()
        self.at = to_datetime(clock_now())

    def parts(self) -> Iterator[bytes]:
        head = {"exported_at": self.at, "position": self.upto, "user": self.user()}
        yield msgspec.json.encode(head)[:-1]
        yield from _array("conversations", map(self.conversation, self.conversation_ids()))
        yield from _array("messages", map(_exchanges, self.messages()))
        yield from _array("events", map(_recorded, self.everything()))
        yield b"}"

    def user(self) -> dict[str, Any]:
        tokens, username, created_at = 0, None, None
        for page in self.stream(self.user_id):
            for event in page:
                kind = event.topic.removeprefix(_ACCOUNTS)
                tokens += _SIGNS.get(kind, 0) * event.data.get("amount", 0)
                if kind == "UserRegistered":
                    (username,) = decrypt_all([event.data["username"]])
                    created_at = to_datetime(event.at)
        return {
            "id": self.user_id,
            "username": username,
            "role": self.credential.role,
            "active": self.credential.active,
            "tokens": tokens,
            "created_at": created_at,
        }

    def conversation(self, conversation_id: UUID) -> list[dict[str, Any]]:
        """A conversation as it is now; none, where one has a key and has not begun."""
        found: dict[str, Any] = {}
        for page in self.stream(conversation_id):
            for event, data in zip(page, _decrypted(page), strict=True):
                kind = event.topic.removeprefix(_CONVERSATIONS)
                if kind == "ConversationStarted":
                    found = {"id": conversation_id, "created_at": to_datetime(event.at)}
                    found |= {"title": data["title"], "deleted_at": None}
                elif kind == "ConversationRenamed":
                    found["title"] = data["title"]
                elif kind == "ConversationDeleted":
                    found["deleted_at"] = to_datetime(event.at)
        return [found] if found else []

    def everything(self) -> Iterator[Page]:
        yield read_streams([self.credential.claim_id], self.upto)
        for page in self.stream(self.user_id):
            yield page
            yield read_streams(_named(page, "grant_id"), self.upto)
        yield from self.messages()
        for conversation_id in self.conversation_ids():
            yield from self.stream(conversation_id)

    def messages(self) -> Iterator[Page]:
        """Every message was paid for, so the account's stream names them all."""
        for page in self.stream(self.user_id):
            paid = [event for event in page if event.topic == f"{_ACCOUNTS}TokensDebited"]
            yield read_streams(_named(paid, "message_id"), self.upto)

    def conversation_ids(self) -> list[UUID]:
        """Every conversation has a key that the user's wraps, a deleted one too."""
        keys = DataKey.objects.filter(wrapped_by=self.user_id).order_by("id")
        return list(keys.values_list("id", flat=True))

    def stream(self, stream_id: UUID) -> Iterator[Page]:
        version = 0
        while page := read_stream_after(stream_id, version, PAGE_EVENTS, self.upto):
            yield page
            version = page[-1].version


def _array(name: str, pages: Iterable[Sequence[object]]) -> Iterator[bytes]:
    yield f',"{name}":['.encode()
    comma = b""
    for page in pages:
        if page:
            yield comma + b",".join(map(msgspec.json.encode, page))
            comma = b","
    yield b"]"


def _exchanges(page: Page) -> list[dict[str, Any]]:
    """Messages with what became of them; a page holds both events of each."""
    found: dict[UUID, dict[str, Any]] = {}
    for event, data in zip(page, _decrypted(page), strict=True):
        if event.topic == f"{_CONVERSATIONS}MessageSent":
            found[event.stream_id] = {
                "id": event.stream_id,
                "conversation_id": data["conversation_id"],
                "message": data["message"],
                "response": None,
                "status": PENDING,
                "cost": data["price"],
                "model": None,
                "reason": None,
                "created_at": to_datetime(event.at),
                "responded_at": None,
            }
        elif status := _STATUS.get(event.topic):
            found[event.stream_id] |= {
                "response": data.get("response"),
                "status": status,
                "cost": data["cost"],
                "model": data.get("model"),
                "reason": data.get("reason"),
                "responded_at": to_datetime(event.at),
            }
    return list(found.values())


def _recorded(page: Page) -> list[dict[str, Any]]:
    return [
        {
            "position": event.position,
            "at": to_datetime(event.at),
            "type": event.topic,
            "stream": event.stream_id,
            "version": event.version,
            "event_id": event.event_id,
            "actor": event.actor,
            "request_id": event.request_id,
            "causation_id": event.causation_id,
            "data": data,
        }
        for event, data in zip(page, _decrypted(page), strict=True)
    ]


def _decrypted(page: Page) -> list[dict[str, Any]]:
    """What the events say, with their text, for which keys are read once a page."""
    texts = [v for event in page for v in event.data.values() if isinstance(v, EncryptedText)]
    clear = iter(decrypt_all(texts))
    return [
        {
            name: next(clear) if isinstance(value, EncryptedText) else value
            for name, value in event.data.items()
        }
        for event in page
    ]


def _named(page: Page, field: str) -> list[UUID]:
    return [UUID(event.data[field]) for event in page if event.data.get(field)]
