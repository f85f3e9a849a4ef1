"""The comparison of the read models with a fresh replay: it names each row that differs."""

from collections.abc import Callable

import pytest

from projections import comparison, generations, queries
from projections.balances import Balances
from projections.comparison import compare_with_fresh_replay
from projections.generations import Projections
from projections.models import Balance, Message, Position, User
from projections.positions import Place
from projections.projection import Projection
from projections.rebuild import RebuildStopped, rebuild
from projections.registry import PROJECTIONS
from projections.runner import ProjectionRunner
from tests.projections.story import (
    ALICE,
    BOB,
    HELLO,
    debited,
    drain,
    generated,
    granted,
    happened,
    projected,
    registered,
    sent,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def some_rows() -> None:
    projected(registered(ALICE), granted(ALICE, 500), sent(), generated(response="hi"))


def test_rows_as_the_log_has_them_do_not_differ() -> None:
    assert compare_with_fresh_replay() == []


def test_a_changed_amount_is_named_with_both_values() -> None:
    Balance.objects.update(amount=501)
    assert compare_with_fresh_replay() == [
        f"balances: user_id {ALICE}: amount is 501, by the log 500"
    ]


def test_a_changed_text_is_named_without_its_bytes() -> None:
    Message.objects.update(response=b"tampered")
    (line,) = compare_with_fresh_replay()
    assert line.startswith(f"history: message_id {HELLO}: response is 8 bytes, by the log ")


def test_a_row_that_is_missing_is_named() -> None:
    User.objects.all().delete()
    assert compare_with_fresh_replay() == [f"users: user_id {ALICE} is missing"]


def test_a_row_that_the_log_does_not_have_is_named() -> None:
    Balance.objects.create(generation=1, user_id=BOB, amount=1)
    assert compare_with_fresh_replay() == [f"balances: user_id {BOB} is not in the log"]


def test_more_differences_than_anybody_reads_are_not_all_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("projections.comparison.DIFFERENCES_MAX", 2)
    projected(registered(BOB, "bob"))
    Balance.objects.update(amount=501)
    Balance.objects.create(generation=1, user_id=HELLO, amount=1)
    assert compare_with_fresh_replay() == [
        f"balances: user_id {HELLO} is not in the log",
        f"balances: user_id {ALICE}: amount is 501, by the log 500",
        "balances: and more",
    ]


def test_rows_that_are_behind_the_log_are_compared_where_they_are() -> None:
    happened(granted(ALICE, 100))
    assert compare_with_fresh_replay() == []


def test_a_parked_stream_is_a_difference() -> None:
    projected(debited(ALICE, "a hundred"))
    (line,) = compare_with_fresh_replay()
    assert line.startswith("balances cannot apply event 5")


def test_nothing_is_left_of_the_comparison() -> None:
    compare_with_fresh_replay()
    assert set(Balance.objects.values_list("generation", flat=True)) == {1}
    assert set(Position.objects.values_list("generation", flat=True)) == {1}


def test_the_runner_goes_on_after_a_comparison() -> None:
    compare_with_fresh_replay()
    happened(debited(ALICE, 100))
    drain(ProjectionRunner())
    assert compare_with_fresh_replay() == []


@pytest.mark.django_db(transaction=True)
def test_sends_and_the_runner_go_on_while_rows_are_compared() -> None:
    compared: list[str] = []

    def send(name: str) -> None:
        compared.append(name)
        happened(debited(ALICE, 1))
        drain(ProjectionRunner())

    assert compare_with_fresh_replay(comparing=send) == []
    assert compared == list(PROJECTIONS)
    assert queries.balance(ALICE) == 500 - len(PROJECTIONS)


@pytest.mark.django_db(transaction=True)
def test_a_difference_is_found_on_a_snapshot_too() -> None:
    Balance.objects.update(amount=501)
    Message.objects.all().delete()
    assert compare_with_fresh_replay(comparing=lambda name: None) == [
        f"balances: user_id {ALICE}: amount is 501, by the log 500",
        f"history: message_id {HELLO} is missing",
    ]


@pytest.mark.django_db(transaction=True)
def test_rows_that_never_stand_still_are_held_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    as_far, held = comparison._as_far_as_the_live, []

    def go_on_unless_held(projection: type[Projection], place: Place, *, hold: bool) -> Place:
        place = as_far(projection, place, hold=hold)
        held.append(hold)
        if not hold:
            happened(debited(ALICE, 1))
            drain(ProjectionRunner())
        return place

    monkeypatch.setattr(comparison, "TRIES_MAX", 4)
    monkeypatch.setattr(comparison, "_as_far_as_the_live", go_on_unless_held)
    assert compare_with_fresh_replay({"balances": Balances}) == []
    assert held == [False, False, True]


@pytest.mark.django_db(transaction=True)
def test_a_comparison_that_finds_no_moment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_live_in", lambda second, place: None)
    with pytest.raises(RebuildStopped, match="the rows of balances never stood still"):
        compare_with_fresh_replay({"balances": Balances})
    assert set(Position.objects.values_list("generation", flat=True)) == {1}


@pytest.mark.parametrize("other", [generations.begin_scratch, rebuild])
def test_of_two_comparisons_or_a_comparison_and_a_swap_the_first_gives_up(
    other: Callable[[Projections], object],
) -> None:
    def interfere(name: str) -> None:
        other(PROJECTIONS)

    with pytest.raises(RebuildStopped, match="another comparison was begun, or a rebuild"):
        compare_with_fresh_replay(comparing=interfere)
    assert compare_with_fresh_replay() == []


def test_what_a_killed_comparison_has_left_goes_with_the_next() -> None:
    generations.begin_scratch(PROJECTIONS)
    Balance.objects.create(generation=2, user_id=ALICE, amount=7)
    assert compare_with_fresh_replay() == []
    assert set(Balance.objects.values_list("generation", flat=True)) == {1}
    assert set(Position.objects.values_list("generation", flat=True)) == {1}
