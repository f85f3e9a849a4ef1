"""Read models that older code has built rebuild themselves, while sends and readers go on."""

import time
from collections.abc import Callable

import pytest

from eventstore.models import EventRecord
from projections import positions, queries, rebuilder
from projections import rebuild as rebuilding
from projections.balances import Balances
from projections.comparison import compare_with_fresh_replay
from projections.history import History
from projections.models import Balance, Position
from projections.rebuild import rebuild
from projections.rebuilder import Rebuilder
from projections.registry import PROJECTIONS
from projections.runner import ProjectionRunner
from tests.projections.story import (
    ALICE,
    BOB,
    STEPS_MAX,
    debited,
    drain,
    granted,
    happened,
    messages,
    projected,
    registered,
    sent,
)
from tests.projections.test_rebuild import BALANCES, interrupt, places_of
from tests.projections.test_runner import in_threads, sends

WAIT_SECONDS_MAX = 30


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilder, "PAUSE_SECONDS_MAX", 0.0)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilding, "BATCH_EVENTS_MAX", 4)


def steps(follower: Rebuilder) -> int:
    """Step until there is nothing to do; how many steps there were."""
    for step in range(STEPS_MAX):
        if not follower.step():
            return step
    raise AssertionError("the follower never came to rest")


@pytest.mark.django_db
def test_read_models_of_this_code_are_left_alone() -> None:
    projected(registered(ALICE), granted(ALICE, 500))
    before = positions.live()
    assert steps(Rebuilder()) == 0
    assert positions.live() == before


@pytest.mark.django_db
def test_rows_that_older_code_has_built_are_rebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    projected(registered(ALICE), granted(ALICE, 500))
    Balance.objects.update(amount=7)  # what older code made of these events
    monkeypatch.setattr(Balances, "version", 2)
    steps(Rebuilder())
    place = positions.live()["balances"]
    assert (place.generation, place.version) == (2, 2)
    assert positions.live()["history"].generation == 1
    assert queries.balance(ALICE) == 500
    assert set(Balance.objects.values_list("generation", flat=True)) == {2}
    assert steps(Rebuilder()) == 0


@pytest.mark.django_db
def test_a_step_is_a_batch_and_another_process_goes_on_with_the_next(
    monkeypatch: pytest.MonkeyPatch, small_batches: None
) -> None:
    projected(registered(ALICE), granted(ALICE, 500), *sends(3))
    monkeypatch.setattr(Balances, "version", 2)
    first = Rebuilder()
    assert first.step() is True
    assert places_of("balances") == [(1, 11), (2, 4)]
    second = Rebuilder()
    assert second.step() is True
    assert places_of("balances") == [(1, 11), (2, 8)]
    steps(second)
    assert places_of("balances") == [(2, 11)]


@pytest.mark.django_db
def test_older_code_beside_newer_code_rebuilds_nothing_and_writes_nothing() -> None:
    projected(registered(ALICE), granted(ALICE, 500))
    Position.objects.filter(name="balances").update(version=7)
    happened(debited(ALICE, 100))
    assert steps(Rebuilder()) == 0
    drain(ProjectionRunner())
    assert places_of("balances") == [(1, 2)]
    assert places_of("history") == [(1, 3)]


@pytest.mark.django_db
def test_what_newer_code_is_filling_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch, small_batches: None
) -> None:
    projected(registered(ALICE), granted(ALICE, 500), *sends(3))
    with monkeypatch.context() as newer, pytest.raises(KeyboardInterrupt):
        newer.setattr(Balances, "version", 3)
        rebuild(BALANCES, interrupt)
    with monkeypatch.context() as older, pytest.raises(KeyboardInterrupt):
        older.setattr(Balances, "version", 2)
        rebuild(BALANCES, interrupt)
    assert sorted(places_of("balances")) == [(1, 11), (2, 4), (3, 4)]
    with monkeypatch.context() as newer:
        newer.setattr(Balances, "version", 3)
        steps(Rebuilder())
        assert positions.live()["balances"] == positions.Place("balances", 2, 11, 3)


@pytest.mark.django_db
def test_an_event_that_new_code_refuses_is_reported_once_and_the_old_rows_stay(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    projected(registered(ALICE), granted(ALICE, 500))
    EventRecord.objects.filter(position=2).update(data=b"no JSON")
    for projection in (Balances, History):
        monkeypatch.setattr(projection, "version", 2)
    follower = Rebuilder()
    assert steps(follower) < 10
    (error,) = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert error.startswith("balances is not rebuilt")
    assert "balances cannot apply event 2" in error
    assert queries.balance(ALICE) == 500
    # Whom the event does not concern is rebuilt all the same.
    assert places_of("history") == [(2, 2)]
    assert places_of("balances") == [(1, 2)]
    follower._look_at = 0.0
    assert steps(follower) == 0


@pytest.mark.django_db
def test_a_rebuild_that_a_command_goes_on_with_is_left_to_the_command(
    monkeypatch: pytest.MonkeyPatch, small_batches: None
) -> None:
    projected(registered(ALICE), granted(ALICE, 500), *sends(6))
    monkeypatch.setattr(Balances, "version", 2)
    follower = Rebuilder()
    follower.step()
    stepped: list[bool] = []

    def look(done: int, total: int) -> None:
        follower._look_at = 0.0
        stepped.append(follower.step())

    rebuild(BALANCES, look)
    assert stepped[0] is True  # it found itself overtaken
    assert True not in stepped[1:]
    assert places_of("balances") == [(2, 20)]


@pytest.mark.django_db(transaction=True)
def test_a_new_version_is_rebuilt_while_sends_and_readers_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rebuilding, "BATCH_EVENTS_MAX", 50)
    happened(registered(ALICE), granted(ALICE, 10_000), registered(BOB, "bob"), granted(BOB, 500))
    happened(*sends(300))
    drain(ProjectionRunner())
    for projection in PROJECTIONS.values():
        monkeypatch.setattr(projection, "version", projection.version + 1)
    late = list(messages(100, first=10_000))
    seen: set[int | None] = set()

    def is_rebuilt() -> bool:
        return {place.generation for place in positions.live().values()} == {2}

    def send() -> None:
        for message in late:
            happened(debited(ALICE, 1, message), sent(message, price=1))

    def follow() -> None:
        runner = ProjectionRunner()
        until(lambda: not runner.step() and is_rebuilt())

    def rebuild_by_itself() -> None:
        follower = Rebuilder()
        until(lambda: not follower.step() and is_rebuilt())

    def read() -> None:
        while not is_rebuilt():
            seen.add(queries.balance(BOB))

    in_threads(send, follow, rebuild_by_itself, rebuild_by_itself, read)
    drain(ProjectionRunner())
    assert seen == {500}
    assert not [each for each in caplog.records if each.levelname == "ERROR"]
    assert queries.balance(ALICE) == 10_000 - 300 - 100
    assert {place.version for place in positions.live().values()} == {2}
    assert Position.objects.count() == len(PROJECTIONS)
    assert compare_with_fresh_replay() == []


def until(is_so: Callable[[], object]) -> None:
    """Go on until it is so, with a bound."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not is_so():
        assert time.monotonic() < deadline
