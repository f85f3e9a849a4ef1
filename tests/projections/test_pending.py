"""Pending: what has been sent and has not ended."""

import pytest
from django.db.models import F

from eventstore.reading import read_events
from projections.models import PendingMessage
from projections.pending import (
    EVER,
    Pending,
    PendingRow,
    due,
    in_flight_of_conversation,
    in_flight_of_user,
)
from projections.runner import ProjectionRunner
from tests.projections.story import (
    ALICE,
    BOB,
    CHAT,
    HELLO,
    TALK,
    Fact,
    broken,
    cancelled,
    drain,
    failed,
    generated,
    happened,
    messages,
    projected,
    rows,
    sent,
)
from tests.projections.test_parking import refuse

pytestmark = pytest.mark.django_db


def pending() -> list[object]:
    return rows(PendingMessage, "pending", "message_id")


def test_a_message_is_pending_with_its_deadline() -> None:
    projected(sent(deadline_seconds=90))
    (event,) = read_events(0)
    assert rows(PendingMessage, "pending", "message_id", "conversation_id") == [(HELLO, TALK)]
    assert due(EVER, limit=10) == [PendingRow(HELLO, ALICE, event.at, event.at + 90_000_000)]


@pytest.mark.parametrize("end", [generated(), failed(), cancelled()], ids=lambda end: end.topic)
def test_an_end_takes_the_message_away(end: Fact) -> None:
    projected(sent())
    assert pending() == [HELLO]
    projected(end)
    assert pending() == []


def test_a_message_that_ends_in_its_own_batch_is_never_written() -> None:
    one, two = messages(2)
    happened(sent(one), sent(two), generated(one))
    drain(ProjectionRunner())
    assert pending() == [two]


def test_a_message_is_due_at_its_deadline_and_not_before() -> None:
    projected(sent(deadline_seconds=90))
    (event,) = read_events(0)
    assert due(event.at + 89_999_999, limit=10) == []
    assert len(due(event.at + 90_000_000, limit=10)) == 1


def test_pages_go_on_where_the_one_before_ends_with_the_oldest_messages_first() -> None:
    ids = list(messages(5))
    projected(*(sent(each) for each in ids[:3]))
    projected(*(sent(each) for each in ids[3:]))
    PendingMessage.objects.filter(message_id__in=ids[1:4]).update(sent_at=F("sent_at") - 10**6)
    pages: list[list[PendingRow]] = [[]]
    while not pages[1:] or pages[-1]:
        pages.append(due(EVER, limit=2, after=pages[-1][-1] if pages[-1] else None))
    assert [len(page) for page in pages] == [0, 2, 2, 1, 0]
    rows = [row for page in pages for row in page]
    assert rows == sorted(rows, key=lambda row: (row.sent_at, row.message_id))
    assert {row.message_id for row in rows} == set(ids)


def test_nothing_is_due_before_the_first_projection() -> None:
    assert due(EVER, limit=10) == []


class TestPendingOf:
    """What of a conversation, and of a user, is pending: exact however far the rows are."""

    def test_it_is_what_the_rows_say_when_they_are_at_the_end_of_the_log(self) -> None:
        one, two, three, four = messages(4)
        projected(
            sent(one),
            sent(two),
            generated(two),
            sent(three, conversation=CHAT),
            sent(four, user=BOB, conversation=HELLO),
        )
        assert in_flight_of_conversation(TALK).pending == {one}
        assert in_flight_of_conversation(CHAT).pending == {three}
        assert in_flight_of_user(ALICE).pending == {one, three}
        assert in_flight_of_user(BOB).pending == {four}

    @pytest.mark.parametrize("read_max", [1, 2, 500])
    def test_behind_the_rows_it_is_what_the_log_says(
        self, monkeypatch: pytest.MonkeyPatch, read_max: int
    ) -> None:
        monkeypatch.setattr("projections.pending.READ_MAX", read_max)
        one, two, three, four, five = messages(5)
        projected(sent(one), sent(two))
        happened(
            sent(three),
            cancelled(one),
            sent(four, conversation=CHAT),
            generated(three),
            sent(five),
        )
        assert pending() == [one, two]
        assert in_flight_of_conversation(TALK).pending == {two, five}
        assert in_flight_of_user(ALICE).pending == {two, four, five}

    def test_before_the_first_projection_the_log_says_it_all(self) -> None:
        one, two = messages(2)
        happened(sent(one), sent(two), failed(one))
        assert in_flight_of_conversation(TALK).pending == {two}
        assert in_flight_of_user(ALICE).pending == {two}

    def test_of_what_nobody_has_heard_of_nothing_is_pending(self) -> None:
        projected(sent())
        assert in_flight_of_conversation(CHAT).pending == set()
        assert in_flight_of_user(BOB).pending == set()

    def test_rows_from_before_there_were_conversations_in_them_count_by_the_log(self) -> None:
        one, two = messages(2)
        projected(sent(one), sent(two, conversation=CHAT))
        PendingMessage.objects.update(conversation_id=None)
        assert in_flight_of_conversation(TALK).pending == {one}
        assert in_flight_of_user(ALICE).pending == {one, two}
        happened(generated(one))
        assert in_flight_of_conversation(TALK).pending == set()

    def test_a_message_whose_sending_is_parked_counts_by_the_log(self) -> None:
        one, two = messages(2)
        projected(sent(one, deadline_seconds="soon"), sent(two, deadline_seconds="soon"))
        projected(broken(sent(HELLO)), failed(two))
        assert pending() == []
        assert in_flight_of_conversation(TALK).pending == {one}
        assert in_flight_of_conversation(CHAT).pending == set()
        assert in_flight_of_user(ALICE).pending == {one}

    def test_a_message_whose_end_is_parked_has_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        projected(sent())
        monkeypatch.setitem(Pending.handlers, generated().topic, refuse)
        projected(generated())
        assert pending() == [HELLO]
        assert in_flight_of_conversation(TALK).pending == set()
        assert in_flight_of_user(ALICE).pending == set()

    def test_the_rows_of_another_generation_do_not_count(self) -> None:
        projected(sent())
        PendingMessage.objects.create(
            generation=2,
            message_id=TALK,
            user_id=ALICE,
            conversation_id=TALK,
            sent_at=1,
            deadline_at=2,
        )
        assert in_flight_of_conversation(TALK).pending == {HELLO}

    def test_at_the_end_of_the_log_it_is_two_statements(
        self, django_assert_num_queries: object
    ) -> None:
        projected(sent())
        with django_assert_num_queries(2):  # type: ignore[operator]  # a fixture that is a context
            assert in_flight_of_conversation(TALK).pending
