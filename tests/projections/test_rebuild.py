"""Rebuilding: beside the live rows, while everything goes on, and swapped at once."""

import contextlib
import itertools
import time
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from rich.progress import Progress

from eventstore.models import EventRecord
from projections import generations, positions, queries
from projections import rebuild as rebuilding
from projections.balances import Balances
from projections.comparison import compare_with_fresh_replay
from projections.history import History
from projections.management.commands.replay import _Rate
from projections.models import (
    Balance,
    Conversation,
    Message,
    ParkedEvent,
    PendingMessage,
    Pointer,
    Position,
    StatementEntry,
    User,
)
from projections.rebuild import EventRefused, RebuildStopped, rebuild
from projections.registry import PROJECTIONS
from projections.runner import ProjectionRunner
from projections.statement import Statement
from tests.projections.story import (
    ALICE,
    CHAT,
    HELLO,
    debited,
    deleted,
    drain,
    generated,
    granted,
    happened,
    messages,
    projected,
    registered,
    renamed,
    rows,
    sent,
    started,
)
from tests.projections.test_runner import in_another_process, in_threads, sends

NAMES = "balances, conversations, history, pending, statement, users"
BALANCES = {"balances": Balances}
MODELS = {
    "balances": Balance,
    "conversations": Conversation,
    "history": Message,
    "pending": PendingMessage,
    "statement": StatementEntry,
    "users": User,
}


def all_rows() -> dict[str, list[Any]]:
    """Every live row, without its generation."""
    return {
        name: rows(MODELS[name], name, *projection.table.types)
        for name, projection in PROJECTIONS.items()
    }


def places_of(name: str) -> list[tuple[int, int]]:
    """Each generation of a read model, and how far it is."""
    places = Position.objects.filter(name=name).order_by("generation")
    return list(places.values_list("generation", "position"))


def interrupt(done: int, total: int) -> None:
    """Stop a rebuild after its first batch, as Ctrl-C does."""
    raise KeyboardInterrupt


def generations_with_rows() -> set[int]:
    return set(Balance.objects.values_list("generation", flat=True)) | set(
        Message.objects.values_list("generation", flat=True)
    )


@pytest.mark.django_db
def test_a_rebuild_gives_the_same_rows_in_a_new_generation() -> None:
    projected(registered(ALICE), granted(ALICE, 4000), debited(ALICE, 100))
    projected(started(), sent(), generated(), renamed(), started(CHAT), deleted(CHAT))
    before = all_rows()
    rebuild(PROJECTIONS)
    assert all_rows() == before
    assert generations_with_rows() == {2}
    assert Position.objects.count() == len(PROJECTIONS)


@pytest.mark.django_db
def test_only_what_is_named_is_rebuilt() -> None:
    projected(registered(ALICE), granted(ALICE, 500))
    rebuild(BALANCES)
    assert {each.name: each.generation for each in Pointer.objects.all()} == {
        "balances": 2,
        "conversations": 1,
        "history": 1,
        "pending": 1,
        "statement": 1,
        "users": 1,
    }


@pytest.mark.django_db
def test_a_rebuild_heals_rows_that_were_changed() -> None:
    projected(registered(ALICE), granted(ALICE, 500))
    Balance.objects.update(amount=1_000_000)
    rebuild(BALANCES)
    assert queries.balance(ALICE) == 500


@pytest.mark.django_db
def test_a_rebuild_before_the_runner_ever_ran_is_as_good() -> None:
    happened(registered(ALICE), granted(ALICE, 500))
    rebuild(PROJECTIONS)
    assert queries.balance(ALICE) == 500
    drain(ProjectionRunner())
    assert queries.balance(ALICE) == 500


@pytest.mark.django_db
def test_the_runner_goes_on_with_the_new_generation() -> None:
    happened(registered(ALICE), granted(ALICE, 500))
    runner = ProjectionRunner()
    drain(runner)
    rebuild(PROJECTIONS)
    happened(debited(ALICE, 100))
    drain(runner)
    assert queries.balance(ALICE) == 400
    assert generations_with_rows() == {2}


@pytest.mark.django_db
def test_events_that_arrive_meanwhile_are_neither_missed_nor_applied_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rebuilding, "BATCH_EVENTS_MAX", 10)
    happened(registered(ALICE), granted(ALICE, 4000), *sends(20))
    runner = ProjectionRunner()
    drain(runner)
    late = messages(5, first=1_000)

    def send_one(done: int, total: int) -> None:
        if (message := next(late, None)) is not None:
            happened(debited(ALICE, 1, message), sent(message, price=1))
            drain(runner)

    rebuild(PROJECTIONS, send_one)
    drain(runner)
    assert queries.balance(ALICE) == 4000 - 20 - 5
    assert len(rows(Message, "history", "message_id")) == 25
    assert compare_with_fresh_replay() == []


@pytest.mark.django_db
def test_the_swap_applies_what_only_the_live_rows_have(monkeypatch: pytest.MonkeyPatch) -> None:
    happened(registered(ALICE), granted(ALICE, 500))
    runner = ProjectionRunner()
    drain(runner)
    swap = rebuilding.Rebuild._swap

    def miss_one_and_swap(rebuild: rebuilding.Rebuild) -> bool:
        if queries.balance(ALICE) == 500:
            happened(debited(ALICE, 100))
            drain(runner)
        return swap(rebuild)

    monkeypatch.setattr(rebuilding.Rebuild, "_swap", miss_one_and_swap)
    rebuild(PROJECTIONS)
    assert queries.balance(ALICE) == 400
    assert {place.position for place in positions.live().values()} == {3}


@pytest.mark.django_db
def test_readers_see_the_old_rows_until_the_swap() -> None:
    projected(registered(ALICE), granted(ALICE, 500), sent())
    seen: list[int | None] = []
    rebuild(PROJECTIONS, lambda done, total: seen.append(queries.balance(ALICE)))
    assert seen == [500]


@pytest.mark.django_db(transaction=True)
def test_a_rebuild_beside_a_runner_and_a_sender_ends_with_the_rows_of_the_log() -> None:
    happened(registered(ALICE), granted(ALICE, 10_000), *sends(1_000))
    drain(ProjectionRunner())
    late = list(messages(100, first=10_000))

    def send() -> None:
        for message in late:
            happened(debited(ALICE, 1, message), sent(message, price=1))

    def follow() -> None:
        runner = ProjectionRunner()
        while positions.live()["balances"].position < 2 + 3_000 + 200:
            runner.step()

    in_threads(send, follow, rebuild_or_lose, rebuild_or_lose)
    drain(ProjectionRunner())
    assert queries.balance(ALICE) == 10_000 - 1_000 - 100
    assert compare_with_fresh_replay() == []
    assert len(generations_with_rows()) == 1


@pytest.mark.django_db
def test_a_rebuild_stops_at_an_event_that_it_cannot_handle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rebuilding, "BATCH_EVENTS_MAX", 1)
    projected(registered(ALICE), granted(ALICE, 500), debited(ALICE, "a hundred"))
    before = positions.live()
    with pytest.raises(EventRefused, match=rf"^balances cannot apply event 3 \(.* {ALICE}\): Type"):
        rebuild(PROJECTIONS)
    assert positions.live() == before
    assert generations_with_rows() == {1}
    assert ParkedEvent.objects.count() == 2


@pytest.mark.django_db
def test_a_rebuild_names_an_event_whose_bytes_say_nothing() -> None:
    happened(registered(ALICE), granted(ALICE, 500))
    EventRecord.objects.filter(position=2).update(data=b"no JSON")
    with pytest.raises(EventRefused, match=r"^balances cannot apply event 2 .*: UnreadableEvent"):
        rebuild(BALANCES)


@pytest.mark.django_db
def test_a_rebuild_leaves_nothing_parked(monkeypatch: pytest.MonkeyPatch) -> None:
    projected(registered(ALICE), debited(ALICE, "a hundred"), granted(ALICE, 500))
    assert queries.parked_count() == 4
    for projection in (Balances, Statement):
        monkeypatch.delitem(projection.handlers, "chatledger.accounts.TokensDebited")
    rebuild(PROJECTIONS)
    assert ParkedEvent.objects.count() == 0
    assert queries.balance(ALICE) == 500


@pytest.mark.django_db
def test_an_interrupted_rebuild_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilding, "BATCH_EVENTS_MAX", 4)
    projected(registered(ALICE), granted(ALICE, 500), *sends(3))
    with pytest.raises(KeyboardInterrupt):
        rebuild(BALANCES, interrupt)
    assert generations_with_rows() == {1, 2}
    assert sorted(places_of("balances")) == [(1, 11), (2, 4)]
    seen: list[int] = []
    rebuild(BALANCES, lambda done, total: seen.append(done))
    assert seen == [8, 11]
    assert places_of("balances") == [(2, 11)]
    assert set(Balance.objects.values_list("generation", flat=True)) == {2}
    assert compare_with_fresh_replay() == []


@pytest.mark.django_db(transaction=True)
def test_a_replay_that_is_killed_within_a_batch_goes_on_where_it_was(
    capsys: pytest.CaptureFixture[str],
) -> None:
    happened(registered(ALICE), granted(ALICE, 500), *sends(100))
    drain(ProjectionRunner())
    killed = in_another_process(
        "import signal\n"
        "from itertools import count\n"
        "from django.core.management import call_command\n"
        "from projections import applying, rebuild\n"
        "from tests.projections.test_runner import after_writing\n"
        "written = count()\n"
        "def die() -> None:\n"
        "    if next(written) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "applying.execute = after_writing(die)\n"
        "rebuild.BATCH_EVENTS_MAX = 50\n"
        "call_command('replay')\n"
    )
    assert killed == -9
    assert sorted(places_of("balances")) == [(1, 302), (2, 150)]
    happened(debited(ALICE, 1))
    drain(ProjectionRunner())
    call_command("replay")
    printed = capsys.readouterr()
    assert "going on at event 151" in printed.err
    assert printed.out == f"{NAMES}: rebuilt from 303 events\n"
    assert {place.generation for place in positions.live().values()} == {2}
    assert queries.balance(ALICE) == 399
    assert compare_with_fresh_replay() == []


@pytest.mark.django_db
def test_rebuilds_that_were_interrupted_at_different_places_become_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rebuilding, "BATCH_EVENTS_MAX", 4)
    projected(registered(ALICE), granted(ALICE, 500), *sends(3))
    before = all_rows()
    for name in ("balances", "history", "balances"):
        with pytest.raises(KeyboardInterrupt):
            rebuild({name: PROJECTIONS[name]}, interrupt)
    seen: list[int] = []
    rebuild(PROJECTIONS, lambda done, total: seen.append(done))
    # Four that are new, with history from 4, and with balances from 8.
    assert seen == [4, 8, 11]
    assert all_rows() == before
    assert {place.generation for place in positions.live().values()} == {2}
    assert Position.objects.count() == len(PROJECTIONS)


@pytest.mark.django_db
def test_what_code_of_another_version_has_begun_is_not_gone_on_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rebuilding, "BATCH_EVENTS_MAX", 1)
    projected(registered(ALICE), granted(ALICE, 500))
    with pytest.raises(KeyboardInterrupt):
        rebuild(BALANCES, interrupt)
    Balance.objects.filter(generation=2).update(amount=7)
    monkeypatch.setattr(Balances, "version", 2)
    with pytest.raises(KeyboardInterrupt):
        rebuild(BALANCES, interrupt)
    assert sorted(places_of("balances")) == [(1, 2), (3, 1)]
    assert generations_with_rows() == {1, 3}
    rebuild(BALANCES)
    assert places_of("balances") == [(3, 2)]
    assert queries.balance(ALICE) == 500


@pytest.mark.django_db
def test_what_a_comparison_has_left_is_neither_gone_on_with_nor_swapped_in() -> None:
    projected(registered(ALICE), granted(ALICE, 500))
    generations.begin_scratch(PROJECTIONS)
    Balance.objects.create(generation=2, user_id=ALICE, amount=7)
    rebuild(PROJECTIONS)
    assert {place.generation for place in positions.live().values()} == {3}
    assert queries.balance(ALICE) == 500
    assert generations_with_rows() == {3}


@pytest.mark.django_db
def test_of_two_rebuilds_the_slower_one_gives_up() -> None:
    projected(registered(ALICE), granted(ALICE, 500))
    with pytest.raises(RebuildStopped, match="another rebuild"):
        rebuild(BALANCES, lambda done, total: rebuild(BALANCES))
    assert queries.balance(ALICE) == 500
    assert positions.live()["balances"].generation == 2
    assert compare_with_fresh_replay() == []


@pytest.mark.django_db
def test_of_two_rebuilds_in_the_middle_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilding, "BATCH_EVENTS_MAX", 4)
    projected(registered(ALICE), granted(ALICE, 500), *sends(3))
    other: list[rebuilding.Rebuild] = []

    def let_the_other_step(done: int, total: int) -> None:
        other.append(rebuilding.Rebuild({"history": History, **BALANCES}))
        other[0].step()
        other[0].step()

    with pytest.raises(RebuildStopped, match="another rebuild of balances goes on"):
        rebuild(BALANCES, let_the_other_step)
    other[0].run()
    assert places_of("balances") == places_of("history") == [(2, 11)]
    assert compare_with_fresh_replay() == []


@pytest.mark.django_db
def test_the_command_says_that_another_was_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    projected(registered(ALICE))
    swap = rebuilding.Rebuild._swap

    def come_second(slower: rebuilding.Rebuild) -> bool:
        monkeypatch.setattr(rebuilding.Rebuild, "_swap", swap)
        rebuild(BALANCES)
        return swap(slower)

    monkeypatch.setattr(rebuilding.Rebuild, "_swap", come_second)
    with pytest.raises(CommandError, match="the replay stopped: another rebuild of balances"):
        call_command("replay", "balances")


@pytest.mark.django_db
def test_the_command_says_how_to_go_on_after_an_interruption(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    projected(registered(ALICE))
    monkeypatch.setattr(rebuilding.Rebuild, "_swap", lambda rebuild: interrupt(0, 0))
    with pytest.raises(CommandError, match="goes on there") as how:
        call_command("replay", "users")
    assert str(how.value) == "interrupted; `manage.py replay users` goes on there"
    assert how.value.returncode == 130
    assert sorted(places_of("users")) == [(1, 1), (2, 1)]


@pytest.mark.django_db(transaction=True)
def test_a_rebuild_pauses_only_after_somebody_else_has_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paused: list[float] = []
    # Not `time.sleep` itself: other threads of this process sleep too.
    monkeypatch.setattr(
        generations, "time", SimpleNamespace(sleep=paused.append, monotonic=time.monotonic)
    )
    happened(registered(ALICE))
    courtesy = generations.Courtesy()
    happened(granted(ALICE, 500))
    courtesy.pause(0.5)
    assert paused == []
    in_threads(lambda: happened(debited(ALICE, 1)))
    courtesy.pause(0.5)
    courtesy.pause(0.5)
    assert paused == ([0.5] if connection.vendor == "sqlite" else [])


def test_the_rate_counts_from_where_a_replay_goes_on() -> None:
    ticks = itertools.count()
    bar = Progress(disable=True, get_time=lambda: float(next(ticks)))
    task = bar.add_task("replay", total=900, completed=500, begun_at=500)
    bar.update(task, completed=600)
    rate = float(_Rate().render(bar.tasks[0]).plain.removesuffix("/s"))
    assert 0 < rate <= 100


@pytest.mark.django_db
def test_old_rows_are_removed_in_bounded_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "REMOVED_ROWS_MAX", 3)
    happened(*(sent(message) for message in messages(10)))
    drain(ProjectionRunner())
    rebuild({"history": History})
    assert set(Message.objects.values_list("generation", flat=True)) == {2}
    assert Message.objects.count() == 10


@pytest.mark.django_db
def test_the_command_rebuilds_everything(capsys: pytest.CaptureFixture[str]) -> None:
    projected(registered(ALICE), granted(ALICE, 500))
    call_command("replay")
    printed = capsys.readouterr()
    assert printed.out == f"{NAMES}: rebuilt from 2 events\n"
    assert "2/2 events" in printed.err
    assert {each.generation for each in Pointer.objects.all()} == {2}


@pytest.mark.django_db
def test_the_command_rebuilds_what_is_named() -> None:
    projected(registered(ALICE))
    call_command("replay", "users", "balances")
    assert {each.name for each in Pointer.objects.filter(generation=2)} == {"users", "balances"}


@pytest.mark.django_db
def test_the_command_names_what_it_does_not_know() -> None:
    with pytest.raises(CommandError, match=f"no read model 'balance'; there are {NAMES}"):
        call_command("replay", "balance")


@pytest.mark.django_db
def test_the_command_fails_with_the_event_it_stopped_at() -> None:
    happened(sent(HELLO), generated(HELLO, cost="much"))
    with pytest.raises(CommandError, match="the replay stopped: history cannot apply event 2"):
        call_command("replay", "history")


def rebuild_or_lose() -> None:
    with contextlib.suppress(RebuildStopped):
        rebuild(PROJECTIONS)
