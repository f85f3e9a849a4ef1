"""Conversations: whose, called what, and where last active."""

import pytest

from eventstore.database import writing
from eventstore.reading import read_events
from projections.applying import writes
from projections.conversations import Conversations
from projections.models import Conversation
from projections.positions import live
from projections.runner import ProjectionRunner
from projections.sql import execute
from tests.projections.story import (
    ALICE,
    CHAT,
    TALK,
    cancelled,
    conversations,
    deleted,
    drain,
    failed,
    generated,
    happened,
    messages,
    projected,
    read,
    renamed,
    rows,
    sent,
    started,
    told,
)

pytestmark = pytest.mark.django_db

in_one_batch_and_in_several = pytest.mark.parametrize(
    "together", [True, False], ids=["in one batch", "in several"]
)


def active() -> list[object]:
    return rows(Conversation, "conversations", "conversation_id", "active")


def titles() -> list[str | None]:
    return read(rows(Conversation, "conversations", "title"))


def test_a_conversation_knows_its_user_its_place_and_its_time() -> None:
    projected(sent(), started(title="weather"))
    _, event = read_events(0)
    columns = ("conversation_id", "user_id", "position", "active", "created_at")
    assert rows(Conversation, "conversations", *columns) == [(TALK, ALICE, 2, 2, event.at)]
    assert titles() == ["weather"]


def test_a_conversation_need_not_have_a_title() -> None:
    projected(started(title=None))
    assert titles() == [None]


@in_one_batch_and_in_several
def test_the_last_title_counts_and_is_no_activity(*, together: bool) -> None:
    told(started(title=None), renamed(title="wether"), renamed(title="weather"), together=together)
    assert titles() == ["weather"]
    assert active() == [(TALK, 1)]


@in_one_batch_and_in_several
def test_the_last_message_is_the_last_activity(*, together: bool) -> None:
    one, two, three = messages(3)
    told(
        started(TALK),
        started(CHAT),
        sent(one, conversation=CHAT),
        sent(two, conversation=TALK),
        sent(three, conversation=CHAT),
        together=together,
    )
    assert active() == [(TALK, 4), (CHAT, 5)]


@in_one_batch_and_in_several
def test_the_end_of_a_message_is_no_activity(*, together: bool) -> None:
    one, two, three = messages(3)
    told(
        started(),
        *(sent(message) for message in (one, two, three)),
        *(generated(one), failed(two), cancelled(three)),
        together=together,
    )
    assert active() == [(TALK, 4)]


@in_one_batch_and_in_several
def test_a_deletion_takes_the_conversation_away_for_ever(*, together: bool) -> None:
    told(started(TALK), started(CHAT), sent(), deleted(TALK), generated(), together=together)
    assert active() == [(CHAT, 2)]


def test_a_batch_deletes_what_was_there_whatever_else_it_says_of_it() -> None:
    projected(started())
    told(renamed(), sent(), deleted(), together=True)
    assert active() == []


def test_a_message_in_a_conversation_that_is_not_there_changes_nothing() -> None:
    projected(sent(), started(CHAT))
    assert active() == [(CHAT, 2)]


def test_a_batch_of_messages_comes_to_one_row_a_conversation() -> None:
    one, two = conversations(2)
    happened(
        *(
            sent(message, conversation=one if number % 2 else two)
            for number, message in enumerate(messages(20))
        )
    )
    (write,) = Conversations.fold(read_events(0))
    assert {talk: active for active, talk in write.rows} == {str(two): 19, str(one): 20}
    drain(ProjectionRunner())


def test_a_message_that_was_parked_moves_no_activity_back() -> None:
    one, two = messages(2)
    projected(started(TALK), sent(one), sent(two))
    (place,) = [place for name, place in live().items() if name == "conversations"]
    with writing():
        execute(writes(Conversations, place, read_events(1, 1)))
    assert active() == [(TALK, 3)]
