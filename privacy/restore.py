"""Erasures applied again to a log that was restored from an earlier time.

A backup or a dump from before an erasure holds the keys that were destroyed since. The file of
erasures (`privacy.destructions`) names them; whoever restores applies it before anybody is served.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

import msgspec
from eventsourcing.application import AggregateNotFoundError

from accounts.commands import UserNotFound
from accounts.domain import AccountErased
from accounts.models import Credential
from conversations.commands import ConversationNotFound
from conversations.conversation_commands import DeleteConversation, delete_conversation
from eventstore import keys
from eventstore.cause import Cause
from eventstore.clock import to_datetime
from eventstore.models import DataKey
from eventstore.reading import read_stream_after
from privacy.erasure import EraseUser, erase_user

logger = logging.getLogger(__name__)


class ErasuresUnreadable(Exception):
    """The file is no file of erasures; the text says where and why. Nothing was changed."""


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user that was erased, or a conversation of theirs that was deleted."""

    user_id: UUID
    at: datetime
    conversation_id: UUID | None = None


@dataclass(frozen=True)
class Applied:
    """What was erased again; what this log does not hold, or has erased itself, is not counted."""

    users: int
    conversations: int


def apply_erasures(path: Path, cause: Cause) -> Applied:
    """Erase again whatever a file of erasures names. Doing it twice changes nothing.

    Raises `ErasuresUnreadable` before anything is changed.
    """
    lines = list(dict.fromkeys(_lines(path)))
    users = sum(
        _done(erase_user, EraseUser(user_id), cause)
        for user_id in dict.fromkeys(line.user_id for line in lines if not line.conversation_id)
    )
    conversations = sum(
        _done(delete_conversation, DeleteConversation(line.user_id, line.conversation_id), cause)
        for line in lines
        if line.conversation_id and not _began_since(line.conversation_id, line.at)
    )
    return Applied(users, conversations)


def destroy_listed(path: Path) -> None:
    """Destroy, in the caller's transaction, the keys and logins of what the file names.

    So that what is restored in this transaction can never be read here, whatever happens before
    `apply_erasures` ends the accounts and the conversations. Raises `ErasuresUnreadable`.
    """
    for line in dict.fromkeys(_lines(path)):
        key_id = line.conversation_id or line.user_id
        if not DataKey.objects.filter(id=key_id, wrapped__isnull=False).exists():
            continue
        if line.conversation_id is None:
            # Their conversations' keys stay: a key that it wraps is as good as destroyed, and the
            # erasure to come names the conversations by them.
            keys.destroy(line.user_id, user_id=line.user_id)
            Credential.objects.filter(user_id=line.user_id).delete()
        elif not _began_since(line.conversation_id, line.at):
            keys.destroy(line.conversation_id, user_id=line.user_id)


def check_erasures(path: Path) -> None:
    """Raise `ErasuresUnreadable` if it is no file of erasures."""
    for _ in _lines(path):
        pass


def _lines(path: Path) -> Iterator[Line]:
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                try:
                    yield msgspec.json.decode(text, type=Line)
                except msgspec.MsgspecError as error:
                    if not text.endswith(b"\n"):
                        # A copy was made, or a machine died, while this one was written.
                        logger.warning("%s, line %d is not whole and is passed over", path, number)
                        return
                    raise ErasuresUnreadable(f"{path}, line {number}: {error}") from error
    except OSError as error:
        raise ErasuresUnreadable(f"{path}: {error.strerror}") from error


def _began_since(conversation_id: UUID, at: datetime) -> bool:
    """Whether it is another conversation of the same id.

    A default conversation has its id before it begins: one that was deleted may, in a log from
    before that, begin anew.
    """
    begun = read_stream_after(conversation_id, 0, limit=1)
    return bool(begun) and to_datetime(begun[0].at) > at


def _done(command: Callable[..., int], order: object, cause: Cause) -> bool:
    try:
        command(order, cause)
    except (UserNotFound, ConversationNotFound, AccountErased, AggregateNotFoundError):
        return False
    return True
