"""What the APIs read: decrypted, by key, and refused where a stream is parked."""

from uuid import UUID

import pytest

from eventstore import keys
from eventstore.models import DataKey
from projections import queries
from projections.queries import MessageRow, ReadModelParked, UnknownCursor, UserRow
from projections.registry import PROJECTIONS
from projections.runner import ProjectionRunner
from tests.projections.story import (
    ALICE,
    BOB,
    CAROL,
    HELLO,
    NOBODY,
    TALK,
    broken,
    cancelled,
    debited,
    deleted,
    drain,
    failed,
    generated,
    granted,
    happened,
    moment,
    projected,
    registered,
    sent,
)

pytestmark = pytest.mark.django_db


class TestBalance:
    def test_it_is_what_the_user_has(self) -> None:
        projected(registered(ALICE), granted(ALICE, 4000), debited(ALICE, 100))
        assert queries.balance(ALICE) == 3900

    def test_nobody_has_none(self) -> None:
        assert queries.balance(NOBODY) is None
        drain(ProjectionRunner())
        assert queries.balance(NOBODY) is None

    def test_it_is_one_statement(self, django_assert_num_queries: object) -> None:
        projected(registered(ALICE))
        with django_assert_num_queries(1):  # type: ignore[operator]  # a fixture that is a context
            queries.balance(ALICE)

    def test_of_a_parked_account_it_is_refused_and_of_others_it_is_not(self) -> None:
        projected(registered(ALICE), registered(BOB, "bob"), debited(ALICE, "a hundred"))
        with pytest.raises(ReadModelParked, match="TypeError") as refused:
            queries.balance(ALICE)
        assert (refused.value.projection, refused.value.stream_id) == ("balances", ALICE)
        assert queries.balance(BOB) == 0

    def test_of_an_account_that_was_parked_from_its_start_it_is_refused(self) -> None:
        projected(granted(ALICE, "much"))
        with pytest.raises(ReadModelParked):
            queries.balance(ALICE)


class TestUser:
    def test_it_has_a_name_and_a_time(self) -> None:
        projected(registered(ALICE, "alice"))
        assert queries.user(ALICE) == UserRow(ALICE, "alice", moment(1))

    def test_nobody_is_none(self) -> None:
        projected(registered(ALICE))
        assert queries.user(NOBODY) is None

    def test_a_parked_one_is_refused(self) -> None:
        projected(broken(registered(ALICE)))
        with pytest.raises(ReadModelParked):
            queries.user(ALICE)


class TestListUsers:
    def names(self, after: UUID | None = None, limit: int = 100) -> list[str]:
        return [user.username for user in queries.list_users(after, limit)]

    def test_the_oldest_come_first(self) -> None:
        projected(registered(CAROL, "carol"), registered(ALICE, "alice"), registered(BOB, "bob"))
        assert self.names() == ["carol", "alice", "bob"]

    def test_a_page_begins_behind_a_user_and_has_its_limit(self) -> None:
        projected(registered(CAROL, "carol"), registered(ALICE, "alice"), registered(BOB, "bob"))
        assert self.names(limit=2) == ["carol", "alice"]
        assert self.names(after=ALICE, limit=2) == ["bob"]
        assert self.names(after=BOB) == []

    def test_there_is_no_page_behind_nobody(self) -> None:
        projected(registered(ALICE))
        with pytest.raises(UnknownCursor):
            self.names(after=NOBODY)

    def test_a_name_whose_key_was_destroyed_reads_erased(self) -> None:
        projected(registered(ALICE, "alice"), registered(BOB, "bob"))
        DataKey.objects.filter(id=ALICE).update(wrapped=None)
        keys.forget()
        assert self.names() == ["[erased]", "bob"]

    def test_the_keys_of_a_page_come_in_one_statement(
        self, django_assert_num_queries: object
    ) -> None:
        projected(registered(CAROL, "carol"), registered(ALICE, "alice"), registered(BOB, "bob"))
        keys.forget()
        with django_assert_num_queries(3):  # type: ignore[operator]  # a fixture that is a context
            self.names()

    def test_a_page_on_which_a_parked_user_belongs_is_refused_and_others_are_not(self) -> None:
        projected(registered(CAROL, "carol"), broken(registered(ALICE)), registered(BOB, "bob"))
        assert self.names(limit=1) == ["carol"]
        with pytest.raises(ReadModelParked) as refused:
            self.names(limit=2)
        assert refused.value.stream_id == ALICE
        with pytest.raises(ReadModelParked):
            self.names(after=CAROL, limit=1)
        assert self.names(after=BOB) == []

    def test_a_parked_user_who_would_be_the_last_is_missed_too(self) -> None:
        projected(broken(registered(ALICE)))
        with pytest.raises(ReadModelParked):
            self.names()
        projected(registered(BOB, "bob"), broken(registered(CAROL)))
        with pytest.raises(ReadModelParked) as refused:
            self.names(after=BOB)
        assert refused.value.stream_id == CAROL


class TestMessage:
    def test_a_pending_one_has_its_text_and_its_price(self) -> None:
        projected(sent(text="hello"))
        assert queries.message(ALICE, HELLO) == MessageRow(
            id=HELLO,
            conversation_id=TALK,
            message="hello",
            response=None,
            status="pending",
            cost=100,
            model=None,
            created_at=moment(1),
            responded_at=None,
            reason=None,
        )

    def test_one_that_is_done_has_its_response(self) -> None:
        projected(sent(text="hello"), generated(response="hi", cost=100, model="dummy"))
        message = queries.message(ALICE, HELLO)
        assert message is not None
        assert (message.response, message.status, message.model) == ("hi", "done", "dummy")
        assert message.responded_at == moment(2)

    def test_one_that_failed_has_its_reason(self) -> None:
        projected(sent(), failed(reason="deadline"))
        message = queries.message(ALICE, HELLO)
        assert message is not None
        assert (message.status, message.reason, message.cost) == ("failed", "deadline", 0)

    @pytest.mark.parametrize("text", ["so fa", None])
    def test_one_that_was_cancelled_has_the_text_so_far(self, text: str | None) -> None:
        projected(sent(text="hello"), cancelled(response=text, cost=40))
        message = queries.message(ALICE, HELLO)
        assert message is not None
        assert (message.status, message.response, message.cost) == ("cancelled", text, 40)
        assert (message.model, message.reason) == (None, None)
        assert message.responded_at == moment(2)

    def test_one_of_a_deleted_conversation_is_none(self) -> None:
        projected(sent(), generated(), deleted(TALK))
        assert queries.message(ALICE, HELLO) is None

    def test_somebody_elses_is_none_like_one_that_does_not_exist(self) -> None:
        projected(sent())
        assert queries.message(BOB, HELLO) is None
        assert queries.message(ALICE, NOBODY) is None

    @pytest.mark.parametrize("what", ["its sending", "its end"])
    def test_a_parked_one_is_refused_to_its_owner_and_is_none_to_others(self, what: str) -> None:
        if what == "its end":
            projected(sent(), generated(cost="much"))
        else:
            projected(sent(price="much"))
        with pytest.raises(ReadModelParked):
            queries.message(ALICE, HELLO)
        assert queries.message(BOB, HELLO) is None


def test_the_lag_is_that_of_the_slowest_projection() -> None:
    happened(registered(ALICE), granted(ALICE, 500))
    assert queries.lag() == 2
    drain(ProjectionRunner({name: each for name, each in PROJECTIONS.items() if name != "users"}))
    happened(debited(ALICE, 1))
    assert queries.lag() == 1
    drain(ProjectionRunner())
    assert queries.lag() == 0
