"""Rotating `DATA_KEY`."""

import os
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.test.utils import override_settings

from eventstore import keys, rotation
from eventstore.cause import Cause
from eventstore.database import writing
from eventstore.models import DataKey, EventRecord
from eventstore.reading import read_events
from eventstore.rotation import rewrap_keys

pytestmark = pytest.mark.django_db(transaction=True)

CAUSE = Cause("shell:operator")
USERS = 7


class Interrupted(Exception):
    """What stops a run in its middle."""


@pytest.fixture
def users() -> list[UUID]:
    """Users with a conversation each, one of them erased, under the key that will be replaced."""
    ids = [uuid4() for _ in range(USERS)]
    with writing():
        for user in ids:
            keys.create_key(user)
            keys.create_key(conversation_of(user), wrapped_by=user)
        keys.destroy_user(ids[0])
    keys.names_key()
    return ids


@pytest.fixture
def rotated(users: list[UUID]) -> Iterator[None]:
    """The settings of after the key was replaced."""
    keys.forget()
    with override_settings(DATA_KEY=os.urandom(32), DATA_KEY_PREVIOUS=settings.DATA_KEY):
        yield
    keys.forget()


def conversation_of(user: UUID) -> UUID:
    return UUID(int=user.int ^ 1)


def secrets(users: list[UUID]) -> dict[UUID, Any]:
    """What each key encrypts to under one nonce: the same as long as the key is the same."""
    keys.forget()
    return {
        key_id: keys.cipher(key_id).encrypt(bytes(12), b"", None)
        for user in users[1:]
        for key_id in (user, conversation_of(user))
    } | {keys.NAMES_KEY_ID: keys.names_key()}


def test_without_the_previous_key_everything_is_readable_as_before(
    users: list[UUID], rotated: None
) -> None:
    before = secrets(users)
    assert rewrap_keys(CAUSE) == USERS  # all users but the erased one, and the names' key
    with override_settings(DATA_KEY_PREVIOUS=None):
        assert secrets(users) == before
    assert DataKey.objects.get(id=users[0]).wrapped is None


def test_conversations_keys_stay_as_they_are(users: list[UUID], rotated: None) -> None:
    wrapped = dict(DataKey.objects.exclude(wrapped_by=None).values_list("id", "wrapped"))
    rewrap_keys(CAUSE)
    assert dict(DataKey.objects.exclude(wrapped_by=None).values_list("id", "wrapped")) == wrapped


def test_what_was_done_is_in_the_log_and_nothing_done_leaves_no_trace(
    users: list[UUID], rotated: None
) -> None:
    rewrap_keys(CAUSE)
    (event,) = read_events(0)
    assert (event.topic, event.data) == ("chatledger.keys.KeysRewrapped", {"keys": USERS})
    assert event.actor == "shell:operator"
    assert rewrap_keys(CAUSE) == 0
    assert len(read_events(0)) == 1


def test_a_run_that_is_interrupted_is_finished_by_the_next(
    users: list[UUID], rotated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "BATCH_KEYS", 2)
    before = secrets(users)

    def stop(looked_at: int) -> None:
        if looked_at == 4:
            raise Interrupted

    with pytest.raises(Interrupted):
        rewrap_keys(CAUSE, stop)
    assert secrets(users) == before
    assert rewrap_keys(CAUSE) == USERS - 4
    assert sum(event.data["keys"] for event in read_events(0)) == USERS
    with override_settings(DATA_KEY_PREVIOUS=None):
        assert secrets(users) == before


def test_a_batch_that_cannot_be_recorded_is_not_rewrapped(
    users: list[UUID], rotated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dict(DataKey.objects.values_list("id", "wrapped"))

    def refuse(*_: object, **__: object) -> None:
        raise Interrupted

    monkeypatch.setattr(rotation.Rewrapping, "begin", refuse)
    with pytest.raises(Interrupted):
        rewrap_keys(CAUSE)
    assert dict(DataKey.objects.values_list("id", "wrapped")) == before


def test_a_key_that_neither_opens_is_named(users: list[UUID]) -> None:
    others = {"DATA_KEY": os.urandom(32), "DATA_KEY_PREVIOUS": os.urandom(32)}
    with (
        override_settings(**others),
        pytest.raises(CommandError, match="neither DATA_KEY nor DATA_KEY_PREVIOUS opens key"),
    ):
        call_command("rewrap_keys")
    assert not EventRecord.objects.exists()


def test_without_a_previous_key_there_is_nothing_to_do() -> None:
    with pytest.raises(CommandError, match="DATA_KEY_PREVIOUS is missing"):
        call_command("rewrap_keys")


def test_the_command_says_how_many(
    users: list[UUID], rotated: None, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("rewrap_keys")
    assert f"{USERS} keys rewrapped" in capsys.readouterr().out
    (event,) = read_events(0)
    assert event.actor.startswith("shell:")
