"""A batch as one statement: the same rows, all of them or none."""

from typing import Any

import pytest
from django.db import connection

from eventstore.reading import max_position, read_events
from projections import applying, positions
from projections.applying import Batch, prepare, write_alone
from projections.comparison import compare_with_fresh_replay
from projections.models import (
    Balance,
    Conversation,
    Message,
    PendingMessage,
    Position,
    StatementEntry,
    User,
)
from projections.positions import Overtaken
from projections.registry import PROJECTIONS
from projections.runner import ProjectionRunner
from tests.projections.story import (
    ALICE,
    Fact,
    debited,
    drain,
    generated,
    granted,
    happened,
    messages,
    refunded,
    registered,
    renamed,
    rows,
    sent,
    started,
)

pytestmark = pytest.mark.django_db

FIRST, SECOND = messages(2)


def batch_behind(position: int) -> Batch:
    """What the runner prepares of the events behind a position."""
    events = read_events(position, 100)
    pairs = [(PROJECTIONS[name], place) for name, place in positions.live().items()]
    return prepare(pairs, events, events[-1].position, announced=True)


def a_send() -> None:
    """A message of somebody's who has sent before, and its end, in one batch."""
    happened(registered(ALICE), granted(ALICE, 500), started())
    drain(ProjectionRunner())
    happened(debited(ALICE, 100), sent(), generated())


def test_a_send_with_its_response_is_one_statement_on_postgresql(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a_send()
    batch = batch_behind(3)
    if connection.vendor != "postgresql":
        assert batch.at_once is None
        return
    monkeypatch.setattr(applying, "write", None)
    assert write_alone(batch) == list(positions.live().values())
    assert rows(Balance, "balances", "amount") == [400]
    assert compare_with_fresh_replay() == []


def test_the_end_of_one_message_and_the_beginning_of_another_are_one_statement_too() -> None:
    happened(registered(ALICE), granted(ALICE, 500), started(), debited(ALICE, 100), sent(FIRST))
    drain(ProjectionRunner())
    happened(generated(FIRST), debited(ALICE, 100), sent(SECOND))
    batch = batch_behind(5)
    assert (batch.at_once is not None) == (connection.vendor == "postgresql")
    write_alone(batch)
    assert sorted(rows(Message, "history", "status")) == ["done", "pending"]
    assert compare_with_fresh_replay() == []


def test_what_changes_a_row_twice_is_several_statements() -> None:
    happened(registered(ALICE), granted(ALICE, 500), started())
    drain(ProjectionRunner())
    happened(renamed(title="sun"), debited(ALICE, 100), sent())
    batch = batch_behind(3)
    assert batch.at_once is None
    write_alone(batch)
    assert rows(Conversation, "conversations", "active") == [max_position()]
    assert compare_with_fresh_replay() == []


def test_what_follows_an_erasure_does_not_build_on_what_it_removes() -> None:
    happened(registered(ALICE), granted(ALICE, 500), started(), debited(ALICE, 100), sent())
    drain(ProjectionRunner())
    happened(
        Fact(ALICE, "chatledger.accounts.UserErased", {"conversation_ids": []}),
        refunded(ALICE, 100),
    )
    # Alone: among the others it is their rows that make the batch several statements.
    drain(ProjectionRunner({"statement": PROJECTIONS["statement"]}))
    drain(ProjectionRunner())
    assert compare_with_fresh_replay() == []


@pytest.mark.parametrize("moved", ["balances", "users"])
def test_whoever_was_overtaken_at_one_position_writes_nothing_at_any(moved: str) -> None:
    a_send()
    batch = batch_behind(3)
    Position.objects.filter(name=moved).update(position=5)
    as_it_was = everything()

    with pytest.raises(Overtaken):
        write_alone(batch)

    assert everything() == as_it_was


def test_a_generation_that_is_not_read_any_more_is_not_written() -> None:
    a_send()
    batch = batch_behind(3)
    Position.objects.filter(name="history").delete()
    as_it_was = everything()

    with pytest.raises(Overtaken):
        write_alone(batch)

    assert everything() == as_it_was


def everything() -> dict[str, Any]:
    """All rows of all read models, and the positions."""
    models = (User, Balance, StatementEntry, Conversation, Message, PendingMessage, Position)
    return {model.__name__: sorted(map(str, model.objects.values_list())) for model in models}
