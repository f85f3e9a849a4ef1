"""Every query goes by an index: what a page costs does not depend on how much there is."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from pytest_django import DjangoDbBlocker

from eventstore.reading import id_parameter
from projections.conversations import Conversations
from projections.history import History
from projections.models import Balance, Conversation, Message, StatementEntry, User
from projections.queries import accounts, conversations, entries, history, turns
from projections.queries.conversations import POSITION_MAX
from projections.runner import ProjectionRunner
from projections.statement import Statement
from projections.table import Statement as TableStatement
from tests.projections import story
from tests.projections.story import ALICE, BOB, HELLO, TALK, drain

pytestmark = pytest.mark.django_db

LONG = 3_000
SHORT, SHORT_COUNT = 20, 100


@pytest.fixture(scope="module", autouse=True)
def thousands_of_rows(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """One long conversation between many short ones; one user with many conversations, and many."""
    with django_db_blocker.unblock(), transaction.atomic():
        make_rows()
        yield
        transaction.set_rollback(True)


def make_rows() -> None:
    drain(ProjectionRunner())
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            # Making the rows may take longer on a busy machine than a transaction may be idle.
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    places = iter(range(1, 1_000_000))
    ids = story.messages(100_000)
    talks = list(story.conversations(SHORT_COUNT))
    of_messages = [*([TALK] * LONG), *(talk for talk in talks for _ in range(SHORT))]
    Message.objects.bulk_create(
        Message(
            generation=1,
            message_id=next(ids),
            user_id=ALICE,
            conversation_id=talk,
            position=next(places),
            message=b"hello",
            response=b"hi",
            status="done",
            cost=100,
            created_at=1,
            responded_at=1,
        )
        for talk in of_messages
    )
    Conversation.objects.bulk_create(
        Conversation(
            generation=1,
            conversation_id=next(ids),
            user_id=ALICE if number % 2 else next(ids),
            position=number,
            active=number,
            created_at=1,
        )
        for number in range(LONG)
    )
    User.objects.bulk_create(
        User(generation=1, user_id=next(ids), position=number, created_at=1)
        for number in range(LONG)
    )
    Balance.objects.bulk_create(
        Balance(generation=1, user_id=next(ids), amount=number) for number in range(LONG)
    )
    StatementEntry.objects.bulk_create(
        StatementEntry(
            generation=1,
            position=number,
            user_id=ALICE if number % 2 else next(ids),
            entry=number,
            at=number,
            kind="debited",
            amount=1,
            balance=1,
        )
        for number in range(LONG)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


PAGE = [TALK, 0, POSITION_MAX, 101]
FROM_THE_MIDDLE = [TALK, LONG // 2, POSITION_MAX, 101]
TO_THE_MIDDLE = [TALK, 0, LONG // 2, 101]
QUERIES: dict[str, tuple[str, list[Any]]] = {
    "balances": (accounts.BALANCES.format("IN (%s, %s)"), [ALICE, BOB, ALICE, BOB]),
    "user": (accounts.USER, [ALICE, ALICE]),
    "users": (accounts.USERS, [0, 100]),
    "more users": (accounts.USERS, [LONG // 2, 100]),
    "message": (history.MESSAGE, [HELLO, HELLO]),
    "bounds": (history.BOUNDS, [TALK, HELLO, TALK, HELLO]),
    "first page": (history.PAGE, PAGE),
    "last page": (history.PAGE_BACKWARDS, PAGE),
    "page after": (history.PAGE, FROM_THE_MIDDLE),
    "page before": (history.PAGE_BACKWARDS, TO_THE_MIDDLE),
    "turns": (turns.TURNS, [TALK, None, HELLO, POSITION_MAX, 20]),
    "more turns": (turns.TURNS, [TALK, LONG // 2, HELLO, POSITION_MAX, 20]),
    "conversation": (conversations.CONVERSATION, [TALK, TALK]),
    "cursor": (conversations.CURSOR, [ALICE, TALK]),
    "conversations": (conversations.CONVERSATIONS, [ALICE, POSITION_MAX, 100]),
    "more conversations": (conversations.CONVERSATIONS, [ALICE, LONG // 2, 100]),
    "statement": (entries.STATEMENT, [ALICE, POSITION_MAX, 100]),
    "more of the statement": (entries.STATEMENT, [ALICE, LONG // 2, 100]),
    "balance at": (entries.BALANCE_AT, [ALICE, ALICE, LONG // 2, ALICE]),
    "parked account": (entries.PARKED, [ALICE]),
    "nobody's conversations": (conversations.CONVERSATIONS, [BOB, POSITION_MAX, 100]),
}
PAGES = ("first page", "last page", "page after", "page before", "turns", "more turns")
ENTRY = (LONG, ALICE, -1, 1, "debited", 1, HELLO, None, None)
CHANGES: list[tuple[TableStatement, tuple[object, ...]]] = [
    (History.remove, (next(story.conversations(1)),)),
    (History.complete, ("done", 1, b"hi", None, None, 1, HELLO)),
    (Conversations.move, (1, HELLO)),
    (Conversations.rename, (b"title", HELLO)),
    (Conversations.remove, (HELLO,)),
    (Statement.add, ENTRY),
]


def test_every_query_goes_by_an_index_and_sorts_nothing() -> None:
    plans = {name: plan_of(sql, values) for name, (sql, values) in QUERIES.items()}
    assert {name: plan for name, plan in plans.items() if scans(plan) or sorts(plan)} == {}


def test_a_query_that_goes_by_none_would_be_noticed() -> None:
    plan = plan_of("SELECT * FROM projections_history WHERE cost > %s ORDER BY status", [1])
    assert scans(plan)
    assert sorts(plan)
    assert not is_bounded(plan)


def test_a_page_of_a_conversation_reads_no_more_of_the_index_than_it_shows() -> None:
    plans = {name: plan_of(*QUERIES[name]) for name in PAGES}
    assert {name: plan for name, plan in plans.items() if not is_bounded(plan)} == {}


def test_a_cursor_is_found_by_its_own_key() -> None:
    plan = plan_of(*QUERIES["bounds"])
    key = "(generation=? AND message_id=?)" if is_sqlite() else "using projections_history_pkey"
    assert plan.count(key) == 2, plan


def test_what_ended_recently_is_looked_for_in_its_conversation_alone() -> None:
    plan = plan_of(turns.RECENTLY_ENDED, [next(story.conversations(1)), 2, 200])
    assert not scans(plan), plan


def test_every_change_of_a_row_finds_it_by_an_index() -> None:
    plans = [plan_of_change(statement, row) for statement, row in CHANGES]
    assert [plan for plan in plans if scans(plan)] == []


def test_an_entry_finds_the_one_before_it_without_reading_others() -> None:
    plan = plan_of_change(Statement.add, ENTRY)
    key = "(generation=? AND user_id=?)" if is_sqlite() else "Backward using statement_in_order"
    assert key in plan, plan
    assert not re.search(r"TEMP B-TREE|Sort Key: (?!given)", plan), plan


def test_a_balance_of_the_past_looks_at_one_entry_in_each_step() -> None:
    # PostgreSQL makes the plan of a step of the search when it comes to it.
    plan = plan_of(*QUERIES["balance at"], how="EXPLAIN ANALYZE")
    one, last = "(generation=? AND user_id=? AND entry=?)", "(generation=? AND user_id=?)"
    if is_sqlite():
        assert (plan.count(one), plan.count(last)) == (2, 1), plan
    else:
        one = r"Index Cond: \(\(generation = .*\) AND \(user_id = .*\) AND \(entry = .*\)\)"
        assert len(re.findall(one, plan)) == 2, plan
        assert "Index Only Scan Backward using statement_in_order" in plan, plan


def is_sqlite() -> bool:
    return connection.vendor == "sqlite"


def scans(plan: str) -> bool:
    """Whether it reads a read model from end to end; pointers and parked events are few.

    So are the rows of a search, which has one at a time. A Bloom filter is made of a whole table.
    """
    few = r"(?!\w*(pointer|parked|search)|CONSTANT ROW)"
    return bool(re.search(rf"(Seq Scan on|SCAN) {few}\w*|BLOOM FILTER", plan))


def sorts(plan: str) -> bool:
    """Whether it puts rows in order that no index has in order; parked events are few."""
    return bool(re.search(r"TEMP B-TREE|Sort Key: (?!parked)", plan))


def is_bounded(plan: str) -> bool:
    """Whether it reads the index that is in time order, and begins where the page does."""
    if is_sqlite():
        return bool(re.search(r"\(generation=\? AND conversation_id=\? AND position[<>]\?", plan))
    return bool(re.search(r"using history_in_order .*\n\s*Index Cond: .*\"position\" <", plan))


def plan_of_change(statement: TableStatement, row: tuple[object, ...]) -> str:
    command = statement.command(1, [row])
    return plan_of(command.sql, list(command.parameters[0] if command.many else command.parameters))


def plan_of(sql: str, values: list[Any], *, how: str = "EXPLAIN") -> str:
    """A statement's plan, in the words of the database."""
    how = "EXPLAIN QUERY PLAN" if is_sqlite() else how
    with connection.cursor() as cursor:
        cursor.execute(f"{how} {sql}", [id_parameter(value) for value in values])
        return "\n".join(row[3] if is_sqlite() else row[0] for row in cursor.fetchall())
