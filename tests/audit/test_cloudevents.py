"""Events as CloudEvents: what they say to the world, and what they never do."""

import json
from typing import Any
from uuid import UUID

import pytest

from audit.cloudevents import encode, encode_unreadable
from eventstore.encrypted import EncryptedText
from eventstore.instants import rfc3339
from eventstore.reading import RecordedEvent, UnreadableRow

STREAM = UUID("a11ce000-0000-4000-8000-000000000001")
EVENT = UUID("e0e00000-0000-4000-8000-000000000002")
CAUSE = UUID("ca05e000-0000-4000-8000-000000000003")
#: 17 November 2026, 12:00:00.000007 UTC.
AT = 1_794_916_800_000_007


def recorded(
    topic: str = "chatledger.accounts.TokensDebited", *, at: int = AT, **data: Any
) -> RecordedEvent:
    return RecordedEvent(7, STREAM, 3, topic, at, EVENT, "user:alice", "r1", CAUSE, data)


def encrypted(field: str) -> EncryptedText:
    return EncryptedText(STREAM, STREAM, 3, "topic", field, b"box")


def document(event: RecordedEvent) -> dict[str, Any]:
    line = encode(event)
    assert line is not None
    assert b"\n" not in line
    said: dict[str, Any] = json.loads(line)
    return said


def test_an_event_says_what_it_says_with_its_metadata() -> None:
    assert document(recorded(amount=100, message_id=str(CAUSE))) == {
        "specversion": "1.0",
        "id": str(EVENT),
        "source": "urn:chatledger",
        "type": "chatledger.accounts.TokensDebited",
        "subject": str(STREAM),
        "time": "2026-11-17T12:00:00.000007Z",
        "datacontenttype": "application/json",
        "position": 7,
        "streamversion": 3,
        "actor": "user:alice",
        "requestid": "r1",
        "causationid": str(CAUSE),
        "data": {"amount": 100, "message_id": str(CAUSE)},
    }


def test_what_is_not_there_has_no_attribute() -> None:
    bare = RecordedEvent(7, STREAM, 3, "a.b", AT, EVENT, "", "", None, {})
    assert not document(bare).keys() & {"actor", "requestid", "causationid"}


@pytest.mark.parametrize("microseconds", [0, 1, 999_999, 1_000_000])
def test_times_always_have_six_digits(microseconds: int) -> None:
    assert rfc3339(microseconds) == f"1970-01-01T00:00:0{microseconds / 1_000_000:.6f}Z"


@pytest.mark.parametrize(
    "value", [None, "a secret", "[erased]", 7, {"text": "a secret"}, ["a secret"], encrypted("x")]
)
@pytest.mark.parametrize(
    ("topic", "field"),
    [
        ("chatledger.accounts.UserRegistered", "username"),
        ("chatledger.accounts.TokensGranted", "reason"),
        ("chatledger.conversations.MessageSent", "message"),
        ("chatledger.conversations.ResponseGenerated", "response"),
        ("chatledger.conversations.ConversationRenamed", "title"),
    ],
)
def test_a_personal_field_is_left_out_whatever_stands_in_it(
    topic: str, field: str, value: object
) -> None:
    data: dict[str, Any] = {field: value, "amount": 1}
    said = document(recorded(topic, **data))
    assert said["data"] == {"amount": 1}


def test_a_field_of_the_same_name_elsewhere_is_said() -> None:
    said = document(recorded("chatledger.accounts.TokensRefunded", reason="deadline"))
    assert said["data"] == {"reason": "deadline"}


def test_what_is_encrypted_is_left_out_of_an_unknown_event_at_any_depth() -> None:
    mark = {"key": str(STREAM), "box": "c2VjcmV0"}
    said = document(
        recorded("from.tomorrow", n=1, a=encrypted("a"), b={"c": mark, "d": 2}, e=[mark, [mark], 3])
    )
    assert said["data"] == {"n": 1, "b": {"d": 2}, "e": [[], 3]}


@pytest.mark.parametrize("at", [10**18, -(10**18), 10**30])
def test_a_time_that_no_calendar_has_makes_an_event_unreadable(at: int) -> None:
    assert encode(recorded(at=at)) is None


def test_a_row_that_is_no_event_gives_its_position() -> None:
    assert encode(UnreadableRow(7)) is None
    assert json.loads(encode_unreadable(7)) == {
        "specversion": "1.0",
        "id": "unreadable-7",
        "source": "urn:chatledger",
        "type": "chatledger.audit.Unreadable",
        "position": 7,
    }
