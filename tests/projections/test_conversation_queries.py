"""A user's conversations: each by itself, and all of them by their last activity."""

from uuid import UUID

import pytest

from eventstore import keys
from projections import queries
from projections.conversations import Conversations
from projections.models import Conversation
from projections.queries import ConversationRow, ReadModelParked, UnknownCursor
from projections.rebuild import rebuild
from projections.runner import ProjectionRunner
from tests.projections.story import (
    ALICE,
    BOB,
    CHAT,
    NOBODY,
    TALK,
    Fact,
    broken,
    conversations,
    deleted,
    drain,
    happened,
    messages,
    moment,
    projected,
    renamed,
    sent,
    started,
)

pytestmark = pytest.mark.django_db


def no_title(conversation: UUID = TALK) -> Fact:
    """A renaming that the read model cannot handle."""
    return broken(renamed(conversation))


class TestConversation:
    def test_it_has_a_title_and_a_time(self) -> None:
        projected(started(title="weather"), sent())
        assert queries.conversation(ALICE, TALK) == ConversationRow(TALK, "weather", moment(1))

    def test_it_need_not_have_a_title(self) -> None:
        projected(started(title=None))
        assert queries.conversation(ALICE, TALK) == ConversationRow(TALK, None, moment(1))

    def test_somebody_elses_is_none_like_one_that_does_not_exist(self) -> None:
        assert queries.conversation(ALICE, TALK) is None
        projected(started())
        assert queries.conversation(BOB, TALK) is None
        assert queries.conversation(ALICE, NOBODY) is None

    def test_a_deleted_one_is_none(self) -> None:
        projected(started(), deleted())
        assert queries.conversation(ALICE, TALK) is None

    @pytest.mark.parametrize("what", ["its start", "its title"])
    def test_a_parked_one_is_refused_to_its_owner_and_is_none_to_others(self, what: str) -> None:
        if what == "its title":
            projected(started(), no_title())
        else:
            projected(without_title(started()))
        with pytest.raises(ReadModelParked) as refused:
            queries.conversation(ALICE, TALK)
        assert (refused.value.projection, refused.value.stream_id) == ("conversations", TALK)
        assert queries.conversation(BOB, TALK) is None


class TestListConversations:
    def ids(self, after: UUID | None = None, limit: int = 100, user: UUID = ALICE) -> list[UUID]:
        return [row.id for row in queries.list_conversations(user, after, limit)]

    def test_the_most_recently_active_come_first(self) -> None:
        one, two, three = conversations(3)
        projected(started(one), started(two), started(three))
        assert self.ids() == [three, two, one]
        projected(sent(conversation=one), renamed(two))
        assert self.ids() == [one, three, two]

    def test_they_are_shown_with_title_and_time(self) -> None:
        projected(started(TALK, "weather"), started(CHAT))
        assert queries.list_conversations(ALICE, None, 100) == [
            ConversationRow(CHAT, None, moment(2)),
            ConversationRow(TALK, "weather", moment(1)),
        ]

    def test_each_user_has_their_own(self) -> None:
        projected(started(TALK), started(CHAT, user=BOB))
        assert self.ids() == [TALK]
        assert self.ids(user=BOB) == [CHAT]
        assert self.ids(user=NOBODY) == []

    def test_pages_follow_one_another(self) -> None:
        talks = list(conversations(7))
        happened(*(started(talk) for talk in talks))
        drain(ProjectionRunner())
        pages, after = [], None
        while page := self.ids(after, limit=3):
            pages.append(page)
            after = page[-1]
        newest_first = talks[::-1]
        assert pages == [newest_first[:3], newest_first[3:6], newest_first[6:]]

    @pytest.mark.parametrize("cursor", [NOBODY, CHAT, TALK], ids=["unknown", "Bob's", "deleted"])
    def test_there_is_no_page_behind_what_is_not_in_the_list(self, cursor: UUID) -> None:
        projected(started(TALK), started(CHAT, user=BOB), deleted(TALK))
        with pytest.raises(UnknownCursor, match=str(cursor)):
            self.ids(after=cursor)

    def test_before_the_first_projection_the_list_is_empty(self) -> None:
        assert self.ids() == []
        with pytest.raises(UnknownCursor):
            self.ids(after=TALK)

    def test_a_rebuild_gives_the_same_list(self) -> None:
        projected(started(TALK), started(CHAT), sent())
        Conversation.objects.update(active=0)
        rebuild({"conversations": Conversations})
        assert self.ids() == [TALK, CHAT]

    def test_a_page_is_two_statements_and_one_for_the_keys(
        self, django_assert_num_queries: object
    ) -> None:
        projected(started(TALK, "weather"), started(CHAT, "news"))
        keys.forget()
        with django_assert_num_queries(3):  # type: ignore[operator]  # a fixture that is a context
            self.ids()

    @pytest.mark.parametrize("what", ["its start", "its title"])
    def test_with_a_parked_one_it_is_refused_to_its_owner_and_to_nobody_else(
        self, what: str
    ) -> None:
        projected(started(CHAT, user=BOB))
        if what == "its title":
            projected(started(TALK), no_title())
        else:
            projected(without_title(started(TALK)))
        with pytest.raises(ReadModelParked) as refused:
            self.ids()
        assert refused.value.stream_id == TALK
        assert self.ids(user=BOB) == [CHAT]

    def test_behind_more_parked_ones_than_are_looked_up_it_is_refused_to_everybody(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("projections.queries.conversations.LOOKED_UP_MAX", 2)
        monkeypatch.setattr("projections.queries.parked.LOOKED_UP_MAX", 2)
        one, two, three = conversations(3)
        projected(*(without_title(started(talk)) for talk in (one, two)))
        assert self.ids(user=BOB) == []
        projected(without_title(started(three)))
        with pytest.raises(ReadModelParked):
            self.ids(user=BOB)

    def test_a_parked_message_that_names_nobody_keeps_nobody_from_the_list(self) -> None:
        one, two = messages(2)
        projected(started(TALK), broken(sent(one)), sent(two, deadline_seconds="soon"))
        assert self.ids() == [TALK]


def without_title(fact: Fact) -> Fact:
    """A fact that does not say the title it should, not even that there is none."""
    said = {name: value for name, value in fact.said.items() if name != "title"}
    return Fact(fact.stream_id, fact.topic, said)
