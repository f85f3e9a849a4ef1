"""However a batch of events is cut: the same rows."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from projections import runner as running
from projections.comparison import compare_with_fresh_replay
from projections.models import Conversation, Message, PendingMessage
from projections.rebuild import rebuild
from projections.registry import PROJECTIONS
from projections.runner import ProjectionRunner
from tests.projections.story import (
    Fact,
    cancelled,
    conversations,
    deleted,
    drain,
    failed,
    generated,
    happened,
    messages,
    renamed,
    rows,
    sent,
    started,
)

pytestmark = pytest.mark.django_db

MODELS = {"conversations": Conversation, "history": Message, "pending": PendingMessage}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 20])
def test_a_story_gives_the_same_rows_in_batches_of_any_size(
    monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    happened(*story())
    drain(ProjectionRunner())
    whole = all_rows()
    assert whole["conversations"]
    assert whole["history"]
    assert whole["pending"]
    monkeypatch.setattr(running, "BATCH_EVENTS_MAX", batch_size)
    rebuild_by_the_runner()
    assert all_rows() == whole
    assert compare_with_fresh_replay() == []


def test_a_story_that_is_shown_piece_by_piece_gives_the_rows_of_a_rebuild() -> None:
    runner = ProjectionRunner()
    facts = list(story())
    while facts:
        happened(*facts[:9])
        drain(runner)
        del facts[:9]
    live = all_rows()
    rebuild(PROJECTIONS)
    assert all_rows() == live


def story() -> Iterator[Fact]:
    """Sends, ends, titles and deletions of several conversations among each other."""
    dice = random.Random(4)
    left = list(messages(60))
    talks = list(conversations(8))
    pending: list[tuple[Any, Any]] = []
    begun: list[Any] = []
    while left:
        what = dice.randrange(12)
        if what < 2 and talks:
            begun.append(talks.pop())
            yield started(begun[-1], dice.choice([None, "weather"]))
        elif what < 7 and begun:
            message, talk = left.pop(), dice.choice(begun)
            pending.append((message, talk))
            yield sent(message, conversation=talk)
        elif what < 10 and pending:
            message, talk = pending.pop(dice.randrange(len(pending)))
            yield dice.choice(
                [
                    generated(message, conversation=talk),
                    failed(message, conversation=talk),
                    cancelled(message, dice.choice([None, "so fa"]), conversation=talk),
                ]
            )
        elif what == 10 and begun:
            yield renamed(dice.choice(begun), f"title {len(left)}")
        elif what == 11 and len(begun) > 1 and dice.random() < 0.7:
            # Some of its messages are pending: their ends come late.
            yield deleted(begun.pop(dice.randrange(len(begun))))


def rebuild_by_the_runner() -> None:
    from projections.models import Position

    for model in MODELS.values():
        model._default_manager.all().delete()
    Position.objects.filter(name__in=MODELS).update(position=0)
    drain(ProjectionRunner())


def all_rows() -> dict[str, list[Any]]:
    return {
        name: rows(model, name, *PROJECTIONS[name].table.types) for name, model in MODELS.items()
    }
