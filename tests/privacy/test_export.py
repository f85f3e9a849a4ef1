"""Everything that is held about a user, out of the log."""

import json
from operator import itemgetter
from typing import Any
from uuid import UUID, uuid4

import pytest

from accounts.commands import UserNotFound
from conversations.commands import cancel_message, fail_message
from conversations.conversation_commands import (
    DeleteConversation,
    RenameConversation,
    delete_conversation,
    rename_conversation,
)
from eventstore.cause import Cause
from eventstore.reading import read_stream
from privacy import export
from privacy.erasure import EraseUser, erase_user
from privacy.export import export_user, note_export
from projections.models import Pointer
from tests.conversations.conftest import CAUSE, Send
from tests.privacy.story import all_events, respond, start


def exported(user_id: UUID) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(b"".join(export_user(user_id)))
    return found


def test_it_says_who_they_are(alice: UUID, send: Send) -> None:
    respond(send(alice).message_id)
    user = exported(alice)["user"]
    assert user.pop("created_at").endswith("Z")
    assert user == {
        "id": str(alice),
        "username": "alice",
        "role": "member",
        "active": True,
        "tokens": 3900,
    }


def test_it_holds_every_message_with_what_became_of_it(alice: UUID, send: Send) -> None:
    ids = [send(alice, f"message {number}").message_id for number in range(4)]
    respond(ids[0], "an answer")
    fail_message(ids[1], "responder", CAUSE)
    cancel_message(ids[2], CAUSE)
    messages = exported(alice)["messages"]
    assert [message["id"] for message in messages] == list(map(str, ids))
    assert [
        (each["message"], each["response"], each["status"], each["cost"], each["reason"])
        for each in messages
    ] == [
        ("message 0", "an answer", "done", 100, None),
        ("message 1", None, "failed", 0, "responder"),
        ("message 2", None, "cancelled", 0, None),
        ("message 3", None, "pending", 100, None),
    ]


def test_it_holds_every_conversation_by_its_title_now(alice: UUID, send: Send) -> None:
    talk, gone = start(alice, "First"), start(alice, "Secret")
    rename_conversation(RenameConversation(alice, talk, "Second"), CAUSE)
    respond(send(alice, "deleted", conversation_id=gone).message_id)
    delete_conversation(DeleteConversation(alice, gone), CAUSE)
    told = exported(alice)
    found = {
        each["id"]: (each["title"], each["deleted_at"] is None) for each in told["conversations"]
    }
    assert found == {str(talk): ("Second", True), str(gone): ("[erased]", False)}
    assert [message["message"] for message in told["messages"]] == ["[erased]"]


def test_it_holds_every_event_of_theirs_and_of_nobody_else(
    alice: UUID, bob: UUID, send: Send
) -> None:
    talk = start(alice)
    respond(send(alice, conversation_id=talk).message_id)
    respond(send(bob, "not hers").message_id)
    text = json.dumps(told := exported(alice))
    assert "not hers" not in text
    assert str(bob) not in text
    of_bob = {bob, *(event.stream_id for event in all_events() if str(bob) in str(event.data))}
    wanted = [event.position for event in all_events() if event.stream_id not in of_bob]
    assert sorted(event["position"] for event in told["events"]) == wanted
    sent = next(event for event in told["events"] if event["type"].endswith("MessageSent"))
    assert sent["data"]["message"] == "hello"
    assert sent["actor"] == CAUSE.actor


def test_it_needs_no_read_model(alice: UUID, send: Send) -> None:
    respond(send(alice).message_id)
    assert not Pointer.objects.exists()
    assert len(exported(alice)["messages"]) == 1


def test_many_pages_come_to_the_same(
    alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        respond(send(alice, str(number), conversation_id=start(alice)).message_id)
    whole = exported(alice)
    monkeypatch.setattr(export, "PAGE_EVENTS", 2)
    paged = exported(alice)
    for name, key in (("conversations", "id"), ("messages", "id"), ("events", "position")):
        assert sorted(paged[name], key=itemgetter(key)) == sorted(whole[name], key=itemgetter(key))


def test_no_piece_holds_more_than_a_page(
    alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        respond(send(alice, "x" * 1_000 + str(number)).message_id)
    monkeypatch.setattr(export, "PAGE_EVENTS", 2)
    assert max(map(len, export_user(alice))) < 6_000


def test_what_is_sent_at_a_time_is_small(
    alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(alice, "x" * 8_000)
    monkeypatch.setattr(export, "PIECE_BYTES_MAX", 100)
    assert max(map(len, export_user(alice))) == 100
    assert exported(alice)["messages"][0]["message"] == "x" * 8_000


def test_all_of_it_is_of_one_instant(alice: UUID, send: Send) -> None:
    first = send(alice, "before").message_id
    pieces = export_user(alice)
    said = next(pieces)
    respond(first)
    respond(send(alice, "after").message_id)
    told = json.loads(said + b"".join(pieces))
    assert [(each["message"], each["status"]) for each in told["messages"]] == [
        ("before", "pending")
    ]
    assert told["user"]["tokens"] == 3900
    assert max(event["position"] for event in told["events"]) == told["position"]


def test_a_conversation_that_was_often_renamed_comes_in_pages_too(
    alice: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = start(alice)
    for number in range(20):
        rename_conversation(RenameConversation(alice, talk, f"{number} {'x' * 150}"), CAUSE)
    monkeypatch.setattr(export, "PAGE_EVENTS", 2)
    assert max(map(len, export_user(alice))) < 2_000
    (conversation,) = exported(alice)["conversations"]
    assert conversation["title"].startswith("19 ")


def test_nobody_unknown_and_nobody_erased_is_exported(alice: UUID) -> None:
    erase_user(EraseUser(alice), CAUSE)
    for user_id in (alice, uuid4()):
        with pytest.raises(UserNotFound):
            export_user(user_id)
        with pytest.raises(UserNotFound):
            note_export(user_id, CAUSE)


def test_what_staff_are_given_is_in_the_log(alice: UUID) -> None:
    note_export(alice, Cause("staff:bob"))
    event = read_stream(alice)[-1]
    assert (event.topic, event.actor, event.data) == (
        "chatledger.accounts.UserExported",
        "staff:bob",
        {},
    )
