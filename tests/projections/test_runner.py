"""The runner: each event exactly once, whoever else runs and whatever breaks."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError, connection, connections, transaction

from eventstore.database import writing
from eventstore.reading import max_position
from projections import applying, positions
from projections import runner as running
from projections.comparison import compare_with_fresh_replay
from projections.models import Balance, Conversation, ParkedEvent, PendingMessage, Position
from projections.positions import Overtaken
from projections.projection import BATCH_EVENTS_MAX
from projections.registry import PROJECTIONS
from projections.runner import ProjectionRunner
from tests.projections.story import (
    ALICE,
    BOB,
    Fact,
    debited,
    drain,
    generated,
    granted,
    happened,
    messages,
    registered,
    rows,
    sent,
    started,
)


def sends(count: int) -> list[Fact]:
    """So many sends with their responses, each for one token of Alice's."""
    return [
        fact
        for message in messages(count)
        for fact in (debited(ALICE, 1, message), sent(message, price=1), generated(message, cost=1))
    ]


def about_to_apply_a_debit() -> ProjectionRunner:
    """A runner that has shown Alice's 500 tokens, and has 100 less to show next."""
    happened(registered(ALICE), granted(ALICE, 500))
    runner = ProjectionRunner()
    drain(runner)
    happened(debited(ALICE, 100))
    return runner


def balance_of_alice() -> int:
    amounts: dict[UUID, int] = dict(rows(Balance, "balances", "user_id", "amount"))
    return amounts[ALICE]


@pytest.mark.django_db
def test_a_runner_with_nothing_to_do_says_so() -> None:
    runner = ProjectionRunner()
    assert runner.step() is False
    happened(registered(ALICE))
    assert runner.step() is False
    assert rows(Balance, "balances", "user_id") == [ALICE]


@pytest.mark.django_db
def test_a_runner_that_has_not_reached_the_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BATCH_EVENTS_MAX", 2)
    happened(registered(ALICE), granted(ALICE, 500), granted(ALICE, 500))
    runner = ProjectionRunner()
    assert [runner.step() for _ in range(2)] == [True, False]
    assert balance_of_alice() == 1000


@pytest.mark.django_db
def test_every_projection_begins_at_the_start_of_the_log() -> None:
    happened(registered(ALICE), granted(ALICE, 500))
    drain(ProjectionRunner())
    assert {name: place.position for name, place in positions.live().items()} == dict.fromkeys(
        PROJECTIONS, 2
    )


@pytest.mark.django_db
def test_a_step_takes_no_more_than_a_batch() -> None:
    happened(registered(ALICE), granted(ALICE, 4000), *sends(400))
    runner = ProjectionRunner()
    assert drain(runner) == 2  # and the third finds less than a batch
    assert balance_of_alice() == 3600
    assert rows(PendingMessage, "pending", "message_id") == []


@pytest.mark.django_db
def test_a_projection_that_is_behind_catches_up_with_the_others() -> None:
    others = {name: each for name, each in PROJECTIONS.items() if name != "balances"}
    happened(registered(ALICE), granted(ALICE, 4000), *sends(200))
    drain(ProjectionRunner(others))
    happened(debited(ALICE, 100))
    drain(ProjectionRunner())
    assert balance_of_alice() == 3700
    assert compare_with_fresh_replay() == []


@pytest.mark.django_db
def test_a_projection_that_is_new_to_a_database_is_filled_while_the_others_go_on() -> None:
    old = {name: each for name, each in PROJECTIONS.items() if name != "conversations"}
    happened(registered(ALICE), granted(ALICE, 4000), started(), *sends(400))
    drain(ProjectionRunner(old))
    happened(debited(ALICE, 100), *(sent(message) for message in messages(1, first=401)))
    runner = ProjectionRunner()
    runner.step()
    assert balance_of_alice() == 3500  # after one step, long before the new one is filled
    places = positions.live()
    assert places["conversations"].position == BATCH_EVENTS_MAX
    assert {places[name].position for name in old} == {max_position()}
    assert {place.generation for place in places.values()} == {1}
    drain(runner)
    assert rows(Conversation, "conversations", "active") == [max_position()]
    assert compare_with_fresh_replay() == []


@pytest.mark.django_db
def test_a_second_runner_finds_itself_overtaken_and_applies_nothing_twice() -> None:
    happened(registered(ALICE), granted(ALICE, 4000))
    first, second = ProjectionRunner(), ProjectionRunner()
    drain(first)
    drain(second)
    happened(debited(ALICE, 100))
    assert first.step() is False
    assert second.step() is True  # it read the event, and learnt that the position had moved
    assert second.step() is False
    assert balance_of_alice() == 3900


@pytest.mark.django_db
def test_applying_from_a_position_that_has_moved_is_refused() -> None:
    happened(registered(ALICE), granted(ALICE, 500))
    drain(ProjectionRunner())
    stale = positions.Place("balances", generation=1, position=0, version=1)
    with pytest.raises(Overtaken):
        applying.apply_together([(PROJECTIONS["balances"], stale)], [], position=2, announced=False)


@pytest.mark.django_db(transaction=True)
def test_two_runners_at_once_apply_each_event_once() -> None:
    happened(registered(ALICE), granted(ALICE, 100_000), *sends(1_500))
    together = threading.Barrier(2)

    def run() -> None:
        runner = ProjectionRunner()
        together.wait(10)
        drain(runner)

    in_threads(run, run)
    assert balance_of_alice() == 98_500
    assert {place.position for place in positions.live().values()} == {max_position()}
    assert ParkedEvent.objects.count() == 0
    assert compare_with_fresh_replay() == []


@pytest.mark.django_db
def test_rows_go_back_with_the_position_when_the_transaction_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = about_to_apply_a_debit()
    with monkeypatch.context() as patch:
        patch.setattr(applying, "execute", after_writing(raises))
        patch.setattr(applying, "execute_alone", before_committing(raises))
        with pytest.raises(OperationalError):
            runner.step()
    assert balance_of_alice() == 500
    drain(runner)
    assert balance_of_alice() == 400


@pytest.mark.django_db
def test_a_commit_whose_word_was_lost_is_not_applied_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = about_to_apply_a_debit()
    write = applying.write_alone

    def write_and_be_cut_off(batch: Any) -> None:
        write(batch)
        raises()

    with monkeypatch.context() as patch:
        patch.setattr(running, "write_alone", write_and_be_cut_off)
        with pytest.raises(OperationalError):
            runner.step()
    drain(runner)
    assert balance_of_alice() == 400


@pytest.mark.django_db(transaction=True)
def test_a_process_that_is_killed_between_rows_and_position_leaves_neither() -> None:
    happened(registered(ALICE), granted(ALICE, 500))
    drain(ProjectionRunner())
    happened(debited(ALICE, 100))
    killed = in_another_process(
        "from projections import applying\n"
        "from projections.runner import ProjectionRunner\n"
        "from tests.projections.test_runner import after_writing, before_committing\n"
        "applying.execute = after_writing(lambda: os._exit(9))\n"
        "applying.execute_alone = before_committing(lambda: os._exit(9))\n"
        "ProjectionRunner().step()\n"
    )
    assert killed == 9
    assert balance_of_alice() == 500
    drain(ProjectionRunner())
    assert balance_of_alice() == 400


@pytest.mark.django_db
def test_after_an_error_the_runner_reads_its_positions_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened(registered(ALICE), granted(ALICE, 500))
    runner = ProjectionRunner()
    drain(runner)
    with monkeypatch.context() as patch:
        patch.setattr("projections.runner.read_events", raises)
        with pytest.raises(OperationalError):
            runner.step()
    Position.objects.filter(name="balances").update(position=0)
    Balance.objects.all().delete()
    drain(runner)
    assert balance_of_alice() == 500


@pytest.mark.django_db(transaction=True)
def test_a_runner_waits_for_whoever_has_locked_the_position() -> None:
    happened(registered(ALICE))
    runner = ProjectionRunner()
    drain(runner)
    happened(granted(ALICE, 500))

    def step_without_patience() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '20ms'")
        with pytest.raises(OperationalError, match="lock timeout"):
            ProjectionRunner().step()

    with writing():
        positions.lock_live(["balances"])
        if connection.vendor == "postgresql":  # on SQLite the transaction has locked everything
            in_threads(step_without_patience)
    drain(runner)
    assert balance_of_alice() == 500


@pytest.mark.django_db(transaction=True)
def test_small_batches_are_written_by_plans_made_once_and_large_ones_by_their_own() -> None:
    def mode() -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SHOW plan_cache_mode")
            return cursor.fetchone()[0]

    runner = ProjectionRunner()
    for facts, expected in (
        ([registered(ALICE), granted(ALICE, 4000)], "force_generic_plan"),
        (sends(running.FEW_EVENTS), "auto"),
        ([debited(ALICE, 1)], "force_generic_plan"),
    ):
        happened(*facts)
        drain(runner)
        if connection.vendor == "postgresql":
            assert mode() == expected
    assert compare_with_fresh_replay() == []


@pytest.mark.django_db
def test_a_database_that_fails_parks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    happened(registered(ALICE), granted(ALICE, 500))
    runner = ProjectionRunner()
    with monkeypatch.context() as patch:
        patch.setattr(applying, "execute", after_writing(raises))
        patch.setattr(applying, "execute_alone", before_committing(raises))
        with pytest.raises(OperationalError):
            runner.step()
    assert ParkedEvent.objects.count() == 0
    drain(runner)
    assert balance_of_alice() == 500


@pytest.mark.django_db
def test_a_table_that_is_not_there_parks_nothing() -> None:
    happened(registered(ALICE))
    drain(ProjectionRunner())
    happened(registered(BOB, "bob"))
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE projections_balances RENAME TO away")
    with pytest.raises(Exception, match="projections_balances"):
        ProjectionRunner().step()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE away RENAME TO projections_balances")
    assert ParkedEvent.objects.count() == 0
    drain(ProjectionRunner())
    assert rows(Balance, "balances", "user_id") == [ALICE, BOB]


@pytest.mark.django_db
def test_code_of_another_version_than_the_rows_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    drain(ProjectionRunner())
    Position.objects.filter(name="history").update(version=7)
    drain(ProjectionRunner())
    assert "history was built by version 7 of its code" in caplog.text


def after_writing(then: Callable[[], None]) -> Callable[[Any], list[int]]:
    """The runner's `execute`, with something happening when rows and position have been written."""
    from projections.sql import execute

    def execute_and_then(commands: Any) -> list[int]:
        touched = execute(commands)
        then()
        return touched

    return execute_and_then


def before_committing(then: Callable[[], None]) -> Callable[[Any], Any]:
    """The runner's `execute_alone`, with something happening before its one statement commits."""
    from projections.sql import execute_alone

    def execute_and_then(command: Any) -> Any:
        with transaction.atomic():
            value = execute_alone(command)
            then()
        return value

    return execute_and_then


def raises(*_: object) -> None:
    raise OperationalError("the connection was cut")


def in_threads(*functions: Callable[[], object]) -> None:
    """Run functions at once, each with a connection of its own; the first error is raised."""
    errors: list[BaseException] = []

    def run(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 (raised in the test's own thread)
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[function]) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def in_another_process(code: str) -> int:
    """Run Python code on the test database in a process of its own; its exit status."""
    settings = connection.settings_dict
    name = str(settings["NAME"])
    if connection.vendor == "sqlite":
        url = f"sqlite:///{name}"
    else:
        base, _, _ = os.environ["DATABASE_URL"].rpartition("/")
        url = f"{base}/{name}"
    environment = os.environ | {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "config.settings"}
    begin = "import os, django\ndjango.setup()\n"
    return subprocess.run(
        [sys.executable, "-c", begin + code], env=environment, timeout=60, check=False
    ).returncode
