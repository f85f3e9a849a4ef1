"""What generation is told of a conversation, and what deletion has to forget of it."""

from uuid import UUID

import pytest

from eventstore import keys
from projections.queries import TurnRow, recently_ended, turns_before
from projections.runner import ProjectionRunner
from tests.projections.story import (
    CHAT,
    HELLO,
    NOBODY,
    TALK,
    cancelled,
    drain,
    failed,
    generated,
    happened,
    messages,
    moment,
    projected,
    sent,
    started,
)

pytestmark = pytest.mark.django_db


class TestTurnsBefore:
    def said(self, message: UUID = HELLO) -> list[tuple[str, str]]:
        return [(turn.message, turn.response) for turn in turns_before(TALK, message, None, 20)]

    def test_they_are_the_exchanges_that_were_sent_before_newest_first(self) -> None:
        one, two, three = messages(3)
        projected(
            started(),
            sent(one, "how are you?"),
            sent(two, "and yours?"),
            sent(HELLO, "hello"),
            sent(three, "later"),
            generated(three, "much later"),
            generated(two, "they too"),
            generated(one, "fine"),
            generated(HELLO, "hi"),
        )
        assert turns_before(TALK, HELLO, None, 20) == [
            TurnRow(3, "and yours?", "they too"),
            TurnRow(2, "how are you?", "fine"),
        ]

    def test_only_those_with_a_response_count(self) -> None:
        one, two, three, four, five = messages(5)
        projected(
            *(sent(one, "pending"), sent(two, "failed"), sent(three, "cut")),
            *(sent(four, "cut at once"), sent(five, "answered without text")),
            *(failed(two), cancelled(three, "so fa"), cancelled(four, None), generated(five, None)),
            sent(HELLO),
        )
        assert self.said() == [("cut", "so fa")]

    def test_other_conversations_do_not_count(self) -> None:
        one, two = messages(2)
        projected(sent(one, conversation=CHAT), generated(one, conversation=CHAT), sent(two))
        assert self.said(two) == []

    def test_before_a_message_that_is_not_shown_yet_is_everything(self) -> None:
        (one,) = messages(1)
        projected(sent(one, "hello"), generated(one, "hi"))
        happened(sent(HELLO))
        assert self.said(HELLO) == [("hello", "hi")]
        assert self.said(NOBODY) == [("hello", "hi")]

    def test_pages_follow_one_another_by_position(self) -> None:
        for message in messages(5):
            happened(sent(message), generated(message))
        happened(sent(HELLO))
        drain(ProjectionRunner())
        pages, position = [], None
        while page := turns_before(TALK, HELLO, position, limit=2):
            pages.append([turn.position for turn in page])
            position = page[-1].position
        assert pages == [[9, 7], [5, 3], [1]]

    def test_a_page_is_one_statement_and_one_for_the_key(
        self, django_assert_num_queries: object
    ) -> None:
        (one,) = messages(1)
        projected(sent(one), generated(one), sent(HELLO))
        keys.forget()
        with django_assert_num_queries(2):  # type: ignore[operator]  # a fixture that is a context
            self.said()

    def test_before_the_first_projection_there_are_none(self) -> None:
        assert self.said() == []


class TestRecentlyEnded:
    def test_they_ended_at_the_time_or_later_and_the_newest_come_first(self) -> None:
        one, two, three = messages(3)
        projected(
            *(sent(one), sent(two), sent(three), sent(HELLO)),
            *(generated(two), failed(one), cancelled(three)),
        )
        assert recently_ended(TALK, microseconds(5)) == [three, two, one]
        assert recently_ended(TALK, microseconds(5) + 1) == [three, one]
        assert recently_ended(TALK, microseconds(7) + 1) == []

    def test_other_conversations_do_not_count(self) -> None:
        projected(sent(HELLO, conversation=CHAT), generated(HELLO, conversation=CHAT))
        assert recently_ended(TALK, 0) == []

    def test_there_is_a_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("projections.queries.turns.RECENTLY_ENDED_MAX", 2)
        one, two, three = messages(3)
        projected(*(sent(one), sent(two), sent(three)))
        projected(*(generated(one), generated(two), generated(three)))
        assert recently_ended(TALK, 0) == [three, two]


def microseconds(position: int) -> int:
    return round(moment(position).timestamp() * 1_000_000)
