"""Databases that are full before anything serves from them, each filled in bulk in a few seconds.

`fill` does it in a process that has the settings of a folder; the functions below are what that
process runs. What a client will read is encrypted with real keys; what nobody will read is random
bytes of the same sizes. At the end the read models show all of it and every event is sealed, so
that a service that starts on it has nothing to catch up with.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import django

from benchmarks.caller import PASSWORD
from benchmarks.contenders import CHATLEDGER_ENVIRONMENT, MESSAGE_PRICE, SIGNUP_TOKENS
from devstack.application import COMMANDS, PROJECT, clean_environment, make_keys, run_once
from devstack.services import start_postgres

DEADLINE_SECONDS = 90
MESSAGE, RESPONSE = "hello", "Hi there! How can I help you today?"
#: Messages, and users, whose rows share a transaction.
STORED_MESSAGES, STORED_USERS = 1_000, 2_000


def fill(profile: str, folder: Path, what: str, *counts: int) -> dict[str, Any]:
    """Fill the new database of a folder with one of `FILLS`; what that says about itself."""
    with database(profile, folder) as environment:
        run_once("migrate", COMMANDS["migrate"], environment, folder)
        command = [sys.executable, "-m", "benchmarks.fills", what, *map(str, counts)]
        done = subprocess.run(
            command, cwd=PROJECT, env=environment, check=True, stdout=subprocess.PIPE
        )
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@contextmanager
def database(profile: str, folder: Path) -> Iterator[dict[str, str]]:
    """The environment of processes on a folder's database, which runs meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = clean_environment() | make_keys(folder) | CHATLEDGER_ENVIRONMENT
    environment |= {"VAR_DIR": str(folder), "DJANGO_SETTINGS_MODULE": "config.settings"}
    if profile == "embedded":
        yield environment
        return
    postgres = start_postgres(folder)
    try:
        # Nothing here asks Redis, but a profile has either both or none.
        yield environment | {"DATABASE_URL": postgres.url, "REDIS_URL": "redis://127.0.0.1:1/0"}
    finally:
        postgres.stop()


def conversations(*messages: int) -> dict[str, Any]:
    """For each number a user with so many messages in their default conversation.

    They are called `sender-<number>`, as the one user of the fills below is.
    """
    for count in messages:
        _converse(_register(f"sender-{count}"), count)
    return _shown()


def log(events: int) -> dict[str, Any]:
    """A log of realistic mix of so many events, at rest, and one user who can log in behind it."""
    from benchmarks.realistic_log import Story, store

    story = Story()
    last = store(chain(islice(story.rows(), events), story.rest()))
    _register(f"sender-{events}")
    return _shown() | {"story_ends_at": last}


def users(count: int) -> dict[str, Any]:
    """So many registered users, of whom the first can log in."""
    _register(f"sender-{count}")
    for first in range(1, count, STORED_USERS):
        _store_users(range(first, min(first + STORED_USERS, count)))
    return _shown()


FILLS: dict[str, Callable[..., dict[str, Any]]] = {
    each.__name__: each for each in (conversations, log, users)
}


def _register(username: str) -> UUID:
    from accounts.commands import RegisterUser, register_user
    from eventstore.cause import Cause

    return register_user(RegisterUser(username, PASSWORD), Cause("anonymous")).user_id


def _converse(user_id: UUID, messages: int) -> None:
    """Send messages and respond to each, with the domain's own rules, many in an append."""
    from accounts.domain import Account
    from conversations.domain import Conversation, Exchange
    from eventstore.cause import Cause
    from eventstore.log import SNAPSHOT_EVERY, event_log

    events = event_log()
    cause = Cause(f"user:{user_id}")
    account = events.load(Account, user_id)
    conversation_id = account.default_conversation_id
    events.append(Conversation.start(conversation_id, user_id=user_id), cause=cause)
    for first in range(0, messages, STORED_MESSAGES):
        pending: list[Any] = []
        for _ in range(min(STORED_MESSAGES, messages - first)):
            message_id = uuid4()
            account.debit(MESSAGE_PRICE, message_id=message_id)
            exchange = Exchange.send(
                message_id,
                user_id=user_id,
                conversation_id=conversation_id,
                message=MESSAGE,
                price=MESSAGE_PRICE,
                deadline_seconds=DEADLINE_SECONDS,
            )
            exchange.respond(RESPONSE, usage=None, attempt=1, model="dummy")
            pending += [*account.collect_events(), *exchange.collect_events()]
        stored = list(map(events.mapper.to_stored_event, pending))
        events.recorder.insert_events(stored, cause=cause)
    if account.version >= SNAPSHOT_EVERY:
        assert events.snapshots is not None
        assert account.snapshot_class is not None
        events.snapshots.put([account.snapshot_class.take(account)])


def _store_users(numbers: range) -> None:
    """Register users as the command does, but without hashing a password for each."""
    from accounts.models import Credential
    from eventstore.cause import Cause
    from eventstore.log import transaction_with_log
    from eventstore.models import DataKey
    from eventstore.recorder import LogRecorder

    data_keys, credentials, events = [], [], []
    for number in numbers:
        user = _User(f"reader.{number:06}")
        data_keys.append(DataKey(id=user.id, wrapped=user.wrapped))
        credentials.append(
            Credential(user_id=user.id, claim_id=user.claim_id, password_hash="x" * 97)
        )
        events += user.events()
    with transaction_with_log():
        DataKey.objects.bulk_create(data_keys)
        Credential.objects.bulk_create(credentials)
        LogRecorder().insert_events(events, cause=Cause("anonymous"))


class _User:
    """A user with a key of their own, and what the log says of the registration."""

    def __init__(self, username: str) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from django.conf import settings

        from eventstore.encrypted import NONCE_BYTES
        from eventstore.keys import KEY_BYTES

        self.id, self.claim_id, self.conversation_id = uuid4(), uuid4(), uuid4()
        self._username = username
        secret, nonce = os.urandom(KEY_BYTES), os.urandom(NONCE_BYTES)
        self._cipher = AESGCM(secret)
        # As `eventstore.keys` wraps it; otherwise no page of users could be read.
        self.wrapped = nonce + AESGCM(settings.DATA_KEY).encrypt(nonce, secret, self.id.bytes)

    def events(self) -> list[Any]:
        of, default = str(self.id), str(self.conversation_id)
        registered = {"username": self._username, "default_conversation_id": default}
        granted = {"amount": SIGNUP_TOKENS, "reason": "signup", "grant_id": None}
        return [
            self._stored(self.claim_id, 1, "UsernameClaimed", {"user_id": of}),
            self._stored(self.id, 1, "UserRegistered", registered, personal="username"),
            self._stored(self.id, 2, "TokensGranted", granted, personal="reason"),
        ]

    def _stored(
        self, stream_id: UUID, version: int, kind: str, said: dict[str, Any], personal: str = ""
    ) -> Any:
        import msgspec
        from eventsourcing.persistence import StoredEvent

        from eventstore.encrypted import encrypt

        topic = f"chatledger.accounts.{kind}"
        if personal:
            said[personal] = encrypt(
                said[personal],
                self._cipher,
                key_id=self.id,
                stream_id=stream_id,
                version=version,
                topic=topic,
                field=personal,
            )
        return StoredEvent(stream_id, version, topic, msgspec.json.encode(said))


def _shown() -> dict[str, Any]:
    """Let the read models and the seals reach the end of the log, and the database come to rest."""
    from django.db import connection

    from eventstore.reading import max_position
    from eventstore.seals.sealer import Sealer
    from projections.rebuild import rebuild
    from projections.registry import PROJECTIONS

    events = max_position()
    swapped_at = [0.0]

    def note(_done: int, _total: int) -> None:
        swapped_at[0] = time.perf_counter()

    began = time.perf_counter()
    rebuild(PROJECTIONS, note)
    seconds = swapped_at[0] - began
    sealer = Sealer()
    while sealer.step():
        pass
    if connection.vendor == "postgresql":
        # What it does by itself within a minute, which shall not be the one that is measured.
        with connection.cursor() as cursor:
            cursor.execute("VACUUM (ANALYZE)")
    return {"story_ends_at": 0, "events": events, "replayed_a_second": events / seconds}


def main(what: str, *counts: str) -> int:
    """Fill the database of this process's settings, and print what there is to say about it."""
    django.setup()
    print(json.dumps(FILLS[what](*map(int, counts))))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
