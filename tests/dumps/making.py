"""Logs to dump, dumps in memory, and every row of the tables that a dump carries."""

import io
from typing import Any
from unittest.mock import patch
from uuid import UUID

from django.core.management import call_command
from django.db import connection

from accounts.commands import RegisterUser, register_user
from audit.dumps import wrapping
from audit.dumps.dumping import dump
from audit.dumps.lines import TABLES, Counts
from audit.dumps.loading import fill_read_models, load
from conversations.commands import (
    SendMessage,
    message_id_for,
    respond_to_message,
    send_message,
)
from conversations.conversation_commands import (
    DeleteConversation,
    StartConversation,
    delete_conversation,
    start_conversation,
)
from conversations.domain import Exchange
from eventstore.cause import Cause
from eventstore.log import event_log
from eventstore.reading import max_position
from eventstore.seals.sealer import SEALED_EVENTS_MAX, Sealer
from privacy.erasure import EraseUser, erase_user
from tests.isolation import forget_the_database

CAUSE = Cause("user:test", "request-1")
PASSWORD = "correct horse battery"
#: Text that no encoding gets right by chance.
GREETING = "grüße, 🦉\n\"'\\ \u2028"


def fill_the_log() -> UUID:
    """Sealed events of users one of whom is erased, with a deleted conversation. Alice's id."""
    alice = register_user(RegisterUser("alice", PASSWORD), CAUSE).user_id
    bob = register_user(RegisterUser("bob", PASSWORD), CAUSE).user_id
    talk = start_conversation(StartConversation(alice, "Owls"), CAUSE).id
    gone = start_conversation(StartConversation(alice, "Secrets"), CAUSE).id
    for user, conversation in ((alice, None), (alice, talk), (alice, gone), (bob, None)):
        send(user, GREETING, conversation)
    delete_conversation(DeleteConversation(alice, gone), CAUSE)
    send(alice, "pending", talk, answered=False)
    erase_user(EraseUser(bob), CAUSE)
    seal()
    send(alice, "not sealed yet", talk)
    return alice


def seal() -> None:
    """Seal what there is, twice over."""
    half = max_position() // 2
    for most in (half, SEALED_EVENTS_MAX):
        with patch("eventstore.seals.sealer.SEALED_EVENTS_MAX", most):
            Sealer().step()


def send(user: UUID, text: str, conversation: UUID | None, *, answered: bool = True) -> None:
    """Send a message and respond to it."""
    command = SendMessage(
        user_id=user,
        conversation_id=conversation,
        message_id=message_id_for(user, None),
        message=text,
    )
    message_id = send_message(command, CAUSE).message_id
    if answered:
        exchange = event_log().load(Exchange, message_id)
        respond_to_message(
            exchange, text * 2, usage=None, attempt=1, model="dummy", cause=Cause("worker")
        )


def dumped_log(how: wrapping.Wrapping | None = None) -> bytes:
    """A dump of the log here."""
    out = io.BytesIO()
    dump(out.write, wrapping=how or wrapping.as_they_are(), report=lambda done, total: None)
    return out.getvalue()


def load_here(dump: bytes, passphrase: bytes | None = None) -> Counts:
    """Load a dump into the log here, and show it."""
    loaded = load(io.BytesIO(dump), passphrase=passphrase, report=lambda done, total: None)
    forget_the_database()
    fill_read_models(lambda done, total: None)
    return loaded.counts


def empty_the_log() -> None:
    """An empty database, as after `migrate`."""
    call_command("flush", interactive=False, verbosity=0)
    forget_the_database()


def stored_rows() -> dict[str, list[tuple[Any, ...]]]:
    """Every row that a dump carries, as this database stores it."""
    with connection.cursor() as cursor:
        found = {}
        for table in TABLES:
            columns = ", ".join(table.columns)
            cursor.execute(f"SELECT {columns} FROM {table.name} ORDER BY {table.columns[0]}")
            found[table.name] = cursor.fetchall()
    return found
