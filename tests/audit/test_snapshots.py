"""Snapshots compared with the log: every one that a command could start from."""

import json
import os
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test.utils import override_settings
from pytest_django import Settings

from audit import snapshots, stored
from audit.snapshots import compare_snapshots
from eventstore import keys, log
from eventstore.models import EventRecord, SnapshotRecord
from tests.audit.accounts import erase, live_through, register
from tests.audit.verifying import sql

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def snapshots_soon(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    monkeypatch.setattr(log, "SNAPSHOT_EVERY", 4)
    # Streams and pages end in the midst of each other.
    monkeypatch.setattr(snapshots, "PAGE_ROWS", 3)


@pytest.fixture
def alice() -> UUID:
    """Snapshots of three users, at versions 4 and 8 of each; one of the users is erased."""
    users = [register(name) for name in ("alice", "bob", "carol")]
    for user in users:
        live_through(user)
    erase(users[1])
    assert SnapshotRecord.objects.count() == 6
    return users[0]


def change(user: UUID, version: int, **state: Any) -> None:
    """Change what a snapshot says."""
    record = SnapshotRecord.objects.get(stream_id=user, version=version)
    said = json.loads(bytes(record.data))
    record.data = json.dumps({"state": said["state"] | state}).encode()
    record.save()


@pytest.mark.usefixtures("alice")
def test_those_that_the_service_took_agree() -> None:
    assert compare_snapshots() == []
    keys.forget()
    with override_settings(DATA_KEY=os.urandom(32), DATA_KEY_PREVIOUS=None):
        assert compare_snapshots() == []


def test_without_any_there_is_nothing_to_say() -> None:
    assert compare_snapshots() == []


@pytest.mark.parametrize("version", [4, 8])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tokens", 9_000_000),
        ("tokens", 4000.0),
        ("active", 2),
        ("role", "emperor"),
        ("erased", True),
        ("jwt_epoch", 99),
        ("default_conversation_id", "00000000-0000-4000-8000-000000000000"),
    ],
)
def test_a_field_that_was_changed_is_named(
    alice: UUID, version: int, field: str, value: Any
) -> None:
    change(alice, version, **{field: value})
    (found,) = compare_snapshots()
    begins = f"snapshots: stream {alice}, version {version}: {field} is {json.dumps(value)}, by the"
    assert found.startswith(begins)


def test_one_of_a_version_that_is_not_there_is_named(alice: UUID) -> None:
    SnapshotRecord.objects.filter(stream_id=alice, version=8).update(version=1_000)
    begins = f"snapshots: stream {alice}, version 1000: "
    assert compare_snapshots() == [f"{begins}by the log it has 9 events"]


def test_one_of_another_stream_is_named(alice: UUID) -> None:
    nobody = uuid4()
    SnapshotRecord.objects.filter(stream_id=alice, version=8).update(stream_id=nobody)
    begins = f"snapshots: stream {nobody}, version 8: "
    assert compare_snapshots() == [f"{begins}by the log it has 0 events"]


def test_one_of_a_stream_of_another_kind_is_named(alice: UUID) -> None:
    claim = EventRecord.objects.filter(topic__endswith="UsernameClaimed").earliest("position")
    SnapshotRecord.objects.filter(stream_id=alice, version=8).update(
        stream_id=claim.stream_id, version=1
    )
    (found,) = compare_snapshots()
    assert found.endswith(", version 1: by the log it is no AccountSnapshot")


@pytest.mark.parametrize(
    "data", [b"{", b"{}", b"[]", b'{"state":7}', b'{"state":{},"fits":true}', b"\xff"]
)
def test_one_that_cannot_be_read_is_named(alice: UUID, data: bytes) -> None:
    SnapshotRecord.objects.filter(stream_id=alice, version=4).update(data=data)
    begins = f"snapshots: stream {alice}, version 4: "
    assert compare_snapshots() == [f"{begins}it cannot be read"]


@pytest.mark.parametrize("topic", ["", "no.such.Topic", "chatledger.accounts.UserRegistered"])
def test_one_of_no_known_kind_is_named(alice: UUID, topic: str) -> None:
    SnapshotRecord.objects.filter(stream_id=alice, version=4).update(topic=topic)
    begins = f"snapshots: stream {alice}, version 4: "
    assert compare_snapshots() == [f"{begins}it cannot be read"]


def test_one_of_an_older_shape_is_passed_over_as_commands_do(alice: UUID) -> None:
    SnapshotRecord.objects.filter(stream_id=alice, version=8).update(data=b'{"state":{"tokens":1}}')
    assert compare_snapshots() == []


def test_events_that_cannot_be_replayed_are_said_once(alice: UUID) -> None:
    EventRecord.objects.filter(stream_id=alice, version=3).update(data=b"{")
    assert compare_snapshots() == [f"snapshots: stream {alice}: its events cannot be replayed"]
    EventRecord.objects.filter(stream_id=alice, version=1).delete()
    assert len(compare_snapshots()) == 1


def test_what_is_named_is_bounded(alice: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "DIFFERENCES_MAX", 2)
    SnapshotRecord.objects.update(data=b"{")
    assert compare_snapshots()[2:] == ["snapshots: and more"]


@pytest.mark.parametrize("version", ["'x'", "1.5"])
def test_a_version_that_only_sqlite_can_hold_is_named(alice: UUID, version: str) -> None:
    if connection.vendor == "postgresql":
        return  # It stores numbers and no texts.
    sql(
        f"UPDATE eventstore_snapshot SET version = {version} WHERE stream_id = %s AND version = 8",
        alice.hex,
    )
    (found,) = compare_snapshots()
    assert found == f"snapshots: stream {alice}, version {version}: it cannot be read"
