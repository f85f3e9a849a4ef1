from uuid import UUID

import pytest

from accounts.domain import (
    Account,
    ConversationClosed,
    DefaultConversationReplaced,
    TokensGranted,
    UserRegistered,
)
from conversations.domain import (
    Conversation,
    ConversationDeleted,
    ConversationIsDeleted,
    ConversationRenamed,
    ConversationStarted,
)
from tests.unit.story import ALICE, TALK, fact, given, new_facts

JOKES = UUID("70ce5000-0000-4000-8000-000000000005")
FRESH = UUID("f2e54000-0000-4000-8000-000000000006")

STARTED = fact(ConversationStarted, user_id=ALICE, title="Jokes")
DELETED = fact(ConversationDeleted, user_id=ALICE)
REGISTERED = fact(UserRegistered, username="alice", default_conversation_id=TALK)
GRANTED = fact(TokensGranted, amount=500, reason="signup", grant_id=None)


def test_a_conversation_starts_with_its_owner_and_title() -> None:
    conversation = Conversation.start(JOKES, user_id=ALICE, title="Jokes")
    assert (conversation.user_id, conversation.deleted) == (ALICE, False)
    assert new_facts(conversation) == [STARTED]


def test_it_is_renamed_as_often_as_one_likes() -> None:
    conversation = given(Conversation, STARTED, stream_id=JOKES)
    conversation.rename("Good jokes")
    conversation.rename("Good jokes")
    renamed = fact(ConversationRenamed, user_id=ALICE, title="Good jokes")
    assert new_facts(conversation) == [renamed, renamed]


def test_a_deletion_ends_it() -> None:
    conversation = given(Conversation, STARTED, stream_id=JOKES)
    conversation.delete()
    assert conversation.deleted
    assert new_facts(conversation) == [DELETED]


def test_what_is_deleted_is_neither_renamed_nor_deleted_again() -> None:
    conversation = given(Conversation, STARTED, DELETED, stream_id=JOKES)
    with pytest.raises(ConversationIsDeleted):
        conversation.rename("Good jokes")
    with pytest.raises(ConversationIsDeleted):
        conversation.delete()
    assert new_facts(conversation) == []


def test_its_title_is_no_part_of_its_state() -> None:
    conversation = given(Conversation, STARTED, stream_id=JOKES)
    assert "Jokes" not in map(str, vars(conversation).values())


def test_the_account_notes_that_a_conversation_is_closed() -> None:
    account = given(Account, REGISTERED, GRANTED)
    assert not account.close_conversation(JOKES, new_default_id=FRESH)
    assert (account.default_conversation_id, account.tokens) == (TALK, 500)
    assert new_facts(account) == [fact(ConversationClosed, conversation_id=JOKES)]


def test_a_default_conversation_is_replaced_when_it_is_closed() -> None:
    account = given(Account, REGISTERED, GRANTED)
    assert account.close_conversation(TALK, new_default_id=FRESH)
    assert account.default_conversation_id == FRESH
    assert new_facts(account) == [
        fact(ConversationClosed, conversation_id=TALK),
        fact(DefaultConversationReplaced, conversation_id=FRESH),
    ]


def test_a_replaced_default_conversation_survives_a_replay() -> None:
    account = given(
        Account,
        REGISTERED,
        fact(ConversationClosed, conversation_id=TALK),
        fact(DefaultConversationReplaced, conversation_id=FRESH),
    )
    assert (account.default_conversation_id, account.version) == (FRESH, 3)
