"""Statement: every movement of a user's tokens, numbered, with the balance after it."""

from typing import Any
from uuid import UUID

import pytest

from projections.comparison import compare_with_fresh_replay
from projections.models import StatementEntry
from projections.parking import retry
from projections.statement import Statement
from tests.projections.story import (
    ALICE,
    BOB,
    HELLO,
    TALK,
    broken,
    debited,
    granted,
    moment,
    projected,
    read,
    refunded,
    registered,
    rows,
    told,
)

pytestmark = pytest.mark.django_db


def statement(user: UUID, *columns: str) -> list[Any]:
    """The columns of a user's entries, in order."""
    found = rows(StatementEntry, "statement", "user_id", "entry", *columns)
    entries = sorted((row[1:] for row in found if row[0] == user), key=lambda row: row[0])
    return [row[1:] for row in entries]


@pytest.mark.parametrize("together", [True, False])
def test_each_entry_carries_its_number_and_the_balance_after_it(*, together: bool) -> None:
    told(
        registered(ALICE),
        granted(ALICE, 4000),
        debited(ALICE, 300),
        refunded(ALICE, 100),
        together=together,
    )
    assert statement(ALICE, "position", "entry", "kind", "amount", "balance") == [
        (2, 1, "granted", 4000, 4000),
        (3, 2, "debited", 300, 3700),
        (4, 3, "refunded", 100, 3800),
    ]


@pytest.mark.parametrize("together", [True, False])
def test_everybody_has_entries_and_a_balance_of_their_own(*, together: bool) -> None:
    told(
        *(granted(ALICE, 500), granted(BOB, 1000), debited(BOB, 10), debited(ALICE, 1)),
        *(debited(BOB, 20), refunded(ALICE, 1)),
        together=together,
    )
    assert statement(ALICE, "entry", "balance") == [(1, 500), (2, 499), (3, 500)]
    assert statement(BOB, "entry", "balance") == [(1, 1000), (2, 990), (3, 970)]


def test_a_batch_goes_on_where_the_one_before_ended() -> None:
    told(granted(ALICE, 500), debited(ALICE, 1), granted(BOB, 100), together=True)
    told(debited(BOB, 5), debited(ALICE, 2), debited(ALICE, 4), together=True)
    assert statement(ALICE, "entry", "balance") == [(1, 500), (2, 499), (3, 497), (4, 493)]
    assert statement(BOB, "entry", "balance") == [(1, 100), (2, 95)]


def test_an_entry_says_when_and_where_it_came_from() -> None:
    projected(granted(ALICE, 500), debited(ALICE, 300, HELLO), refunded(ALICE, 300, TALK))
    entries = statement(ALICE, "message_id", "code")
    assert entries == [(None, None), (HELLO, None), (TALK, "deadline")]
    assert read([reason for (reason,) in statement(ALICE, "reason")]) == ["signup", None, None]
    times = [round(moment(position).timestamp() * 1_000_000) for position in (1, 2, 3)]
    assert [at for (at,) in statement(ALICE, "at")] == times


def test_a_registration_without_a_grant_is_no_entry() -> None:
    projected(registered(ALICE))
    assert statement(ALICE, "entry") == []


def test_a_stream_that_was_parked_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    projected(granted(ALICE, 500), granted(BOB, 500))
    with monkeypatch.context() as patched:
        patched.setitem(Statement.handlers, "chatledger.accounts.TokensDebited", refuse)
        told(debited(ALICE, 100), refunded(ALICE, 30), granted(BOB, 7), together=True)
        assert statement(ALICE, "entry", "balance") == [(1, 500)]
        assert statement(BOB, "entry", "balance") == [(1, 500), (2, 507)]
    assert retry(Statement, ALICE).remaining == 0
    assert statement(ALICE, "entry", "balance") == [(1, 500), (2, 400), (3, 430)]
    assert compare_with_fresh_replay() == []


@pytest.mark.parametrize("amount", ["a hundred", None, 2**63])
def test_an_amount_that_is_none_parks_its_account_alone(amount: object) -> None:
    told(granted(ALICE, 500), debited(ALICE, amount), granted(BOB, 7), together=True)
    assert statement(ALICE, "balance") == [(500,)]
    assert statement(BOB, "balance") == [(7,)]


def test_what_says_nothing_is_parked() -> None:
    told(broken(granted(ALICE, 500)), granted(BOB, 7), together=True)
    assert statement(ALICE, "balance") == []
    assert statement(BOB, "balance") == [(7,)]


def test_a_changed_balance_is_named_by_the_position_of_its_event() -> None:
    projected(granted(ALICE, 500), debited(ALICE, 100))
    StatementEntry.objects.filter(entry=2).update(balance=450)
    assert compare_with_fresh_replay() == ["statement: position 2: balance is 450, by the log 400"]


def refuse(projection: Statement, event: object) -> None:
    raise ValueError("not now")
