"""Pages of a conversation's messages, in both directions."""

from typing import Any
from uuid import UUID

import pytest

from eventstore import keys
from eventstore.models import DataKey
from projections import queries
from projections.history import History
from projections.queries import MessagePage, MessageRow, ReadModelParked, UnknownCursor
from projections.runner import ProjectionRunner
from tests.projections.story import (
    ALICE,
    BOB,
    CHAT,
    HELLO,
    NOBODY,
    TALK,
    broken,
    cancelled,
    deleted,
    drain,
    failed,
    generated,
    happened,
    messages,
    moment,
    projected,
    renamed,
    sent,
    started,
)
from tests.projections.test_parking import refuse

pytestmark = pytest.mark.django_db

ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN = messages(7)
OTHERS = list(messages(8, first=100))


@pytest.fixture
def seven() -> None:
    """Seven messages of one conversation, between those of another."""
    happened(started(TALK), started(CHAT))
    for number, message in enumerate((ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN)):
        happened(sent(OTHERS[number], conversation=CHAT), sent(message, text=f"text {number + 1}"))
    # They end in another order than they were sent in.
    happened(generated(SEVEN, "answer 7"), generated(ONE, "answer 1"), failed(FOUR))
    happened(sent(OTHERS[7], conversation=CHAT))
    drain(ProjectionRunner())


def page(limit: int = 3, **where: Any) -> MessagePage:
    found = queries.messages(ALICE, TALK, **{"after": None, "before": None, "limit": limit} | where)
    assert found is not None
    return found


def shown(limit: int = 3, **where: Any) -> tuple[list[UUID], bool, bool]:
    """The ids of a page, and whether there is more before and after it."""
    found = page(limit, **where)
    return [row.id for row in found.rows], found.more_before, found.more_after


@pytest.mark.usefixtures("seven")
class TestPage:
    def test_the_first_page_begins_at_the_start(self) -> None:
        assert shown() == ([ONE, TWO, THREE], False, True)

    def test_the_last_page_ends_at_the_end(self) -> None:
        assert shown(latest=True) == ([FIVE, SIX, SEVEN], True, False)

    def test_behind_a_message_come_those_right_behind_it(self) -> None:
        assert shown(after=ONE) == ([TWO, THREE, FOUR], True, True)
        assert shown(after=FOUR) == ([FIVE, SIX, SEVEN], True, False)
        assert shown(after=SIX) == ([SEVEN], True, False)
        assert shown(after=SEVEN) == ([], True, False)

    def test_before_a_message_come_those_right_before_it(self) -> None:
        assert shown(before=SEVEN) == ([FOUR, FIVE, SIX], True, True)
        assert shown(before=FOUR) == ([ONE, TWO, THREE], False, True)
        assert shown(before=TWO) == ([ONE], False, True)
        assert shown(before=ONE) == ([], False, True)

    def test_between_two_messages_come_those_right_behind_the_first(self) -> None:
        assert shown(after=ONE, before=SEVEN) == ([TWO, THREE, FOUR], True, True)
        assert shown(after=ONE, before=FOUR) == ([TWO, THREE], True, True)
        assert shown(after=ONE, before=TWO) == ([], True, True)

    @pytest.mark.parametrize("latest", [True, False])
    def test_a_page_that_holds_everything_has_nothing_before_or_after_it(
        self, *, latest: bool
    ) -> None:
        everything = [ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN]
        assert shown(7, latest=latest) == (everything, False, False)

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
    def test_pages_forwards_and_backwards_meet_every_message_once(self, limit: int) -> None:
        everything = [ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN]
        forwards, found = [], page(limit)
        forwards += found.rows
        while found.more_after:
            found = page(limit, after=found.rows[-1].id)
            forwards += found.rows
        backwards, found = [], page(limit, latest=True)
        backwards = found.rows
        while found.more_before:
            found = page(limit, before=found.rows[0].id)
            backwards = found.rows + backwards
        assert [row.id for row in forwards] == everything
        assert [row.id for row in backwards] == everything

    @pytest.mark.parametrize("cursor", [NOBODY, OTHERS[0]], ids=["unknown", "elsewhere"])
    @pytest.mark.parametrize("direction", ["after", "before"])
    def test_there_is_no_page_beside_a_message_that_is_not_in_the_conversation(
        self, direction: str, cursor: UUID
    ) -> None:
        where: dict[str, Any] = {direction: cursor}
        with pytest.raises(UnknownCursor, match=str(cursor)):
            page(**where)

    def test_the_conversation_of_somebody_else_has_no_pages_whatever_the_cursor(self) -> None:
        for after in (None, ONE, NOBODY):
            assert queries.messages(BOB, TALK, after=after, before=None, limit=3) is None
        assert queries.messages(ALICE, NOBODY, after=None, before=None, limit=3) is None

    def test_a_deleted_conversation_has_none(self) -> None:
        projected(deleted(TALK))
        assert queries.messages(ALICE, TALK, after=ONE, before=None, limit=3) is None

    def test_a_page_is_three_statements_and_one_for_the_key(
        self, django_assert_num_queries: object
    ) -> None:
        keys.forget()
        with django_assert_num_queries(4):  # type: ignore[operator]  # a fixture that is a context
            page(after=ONE)

    def test_texts_whose_key_was_destroyed_read_erased(self) -> None:
        DataKey.objects.filter(id=TALK).update(wrapped=None)
        keys.forget()
        assert [(row.message, row.response) for row in page(2).rows] == [
            ("[erased]", "[erased]"),
            ("[erased]", None),
        ]


def test_a_message_is_shown_with_all_that_became_of_it() -> None:
    projected(started(), sent(text="hello"), cancelled(response="so fa", cost=40))
    assert page() == MessagePage(
        [
            MessageRow(
                id=HELLO,
                conversation_id=TALK,
                message="hello",
                response="so fa",
                status="cancelled",
                cost=40,
                model=None,
                created_at=moment(2),
                responded_at=moment(3),
                reason=None,
            )
        ],
        more_before=False,
        more_after=False,
    )


def test_a_conversation_without_messages_has_an_empty_page() -> None:
    projected(started())
    assert shown() == ([], False, False)
    assert shown(latest=True) == ([], False, False)


def test_before_the_first_projection_there_is_no_conversation() -> None:
    assert queries.messages(ALICE, TALK, after=None, before=None, limit=3) is None


class TestParked:
    """A page is refused when a message that belongs on it is parked, and only then."""

    @pytest.fixture(params=["shown", "missing"])
    def four_is_parked(self, request: pytest.FixtureRequest) -> None:
        happened(started(TALK), started(CHAT))
        for message in (ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN):
            is_missing = message == FOUR and request.param == "missing"
            happened(sent(message, price="much" if is_missing else 100))
        happened(generated(FOUR, cost="much"), sent(HELLO, conversation=CHAT, price="much"))
        drain(ProjectionRunner())

    @pytest.mark.parametrize(
        "where",
        [
            {"limit": 4},
            {"limit": 100},
            {"limit": 4, "latest": True},
            {"after": THREE, "limit": 1},
            {"after": ONE},
            {"after": ONE, "before": FIVE},
            {"before": FIVE, "limit": 1},
            {"before": SEVEN},
        ],
        ids=str,
    )
    @pytest.mark.usefixtures("four_is_parked")
    def test_a_page_with_it_is_refused(self, where: dict[str, Any]) -> None:
        with pytest.raises(ReadModelParked) as refused:
            page(**where)
        assert (refused.value.projection, refused.value.stream_id) == ("history", FOUR)

    @pytest.mark.parametrize(
        ("where", "ids"),
        [
            ({"limit": 2}, [ONE, TWO]),
            ({"limit": 3, "latest": True}, [FIVE, SIX, SEVEN]),
            ({"after": FIVE}, [SIX, SEVEN]),
            ({"after": ONE, "before": THREE}, [TWO]),
            ({"before": THREE}, [ONE, TWO]),
        ],
        ids=str,
    )
    @pytest.mark.usefixtures("four_is_parked")
    def test_a_page_without_it_is_shown(self, where: dict[str, Any], ids: list[UUID]) -> None:
        assert shown(**where)[0] == ids

    def test_a_parked_conversation_is_refused_to_its_owner(self) -> None:
        projected(started(), broken(renamed()))
        with pytest.raises(ReadModelParked, match="conversations"):
            page()
        assert queries.messages(BOB, TALK, after=None, before=None, limit=3) is None

    def test_a_conversation_whose_deletion_is_parked_is_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setitem(History.handlers, deleted().topic, refuse)
            projected(started(), sent())
            happened(deleted())
            drain(ProjectionRunner({"history": History}))
        with pytest.raises(ReadModelParked, match="history"):
            page()

    def test_behind_more_parked_messages_than_are_looked_up_it_is_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("projections.queries.history.LOOKED_UP_MAX", 2)
        monkeypatch.setattr("projections.queries.parked.LOOKED_UP_MAX", 2)
        projected(started(TALK), started(CHAT))
        projected(*(sent(message, conversation=CHAT, price="much") for message in (ONE, TWO)))
        assert shown()[0] == []
        projected(sent(THREE, conversation=CHAT, price="much"))
        with pytest.raises(ReadModelParked):
            page()


@pytest.mark.usefixtures("seven")
def test_a_page_of_very_long_texts_has_fewer_messages_and_a_next_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = page(limit=7)
    # A text of a few characters takes some 150 bytes, with its place and its key.
    monkeypatch.setattr("projections.queries.history.PAGE_BYTES_MAX", 600)
    first = page(limit=7)
    assert 1 <= len(first.rows) < 7
    assert first.more_after
    rows, last = list(first.rows), first
    while last.more_after:
        last = page(limit=7, after=rows[-1].id)
        rows += last.rows
    assert rows == whole.rows
    latest = page(limit=7, latest=True)
    assert latest.rows == whole.rows[-len(latest.rows) :]
    assert latest.more_before
    monkeypatch.setattr("projections.queries.history.PAGE_BYTES_MAX", 0)
    assert [row.id for row in page(limit=7).rows] == [ONE]
