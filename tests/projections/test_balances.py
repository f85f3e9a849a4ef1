"""Balances: granted, debited, refunded."""

import pytest

from projections.models import Balance
from projections.runner import ProjectionRunner
from tests.projections.story import (
    ALICE,
    BOB,
    debited,
    drain,
    granted,
    happened,
    projected,
    refunded,
    registered,
    rows,
)

pytestmark = pytest.mark.django_db


def balances() -> list[tuple[object, int]]:
    return rows(Balance, "balances", "user_id", "amount")


def test_a_balance_is_what_was_granted_less_what_was_debited_plus_what_was_refunded() -> None:
    projected(registered(ALICE), granted(ALICE, 4000), debited(ALICE, 300), refunded(ALICE, 100))
    assert balances() == [(ALICE, 3800)]


def test_somebody_to_whom_nothing_was_granted_has_no_tokens() -> None:
    projected(registered(ALICE))
    assert balances() == [(ALICE, 0)]


def test_a_batch_adds_up_to_one_row_an_account() -> None:
    happened(registered(ALICE), granted(ALICE, 500), registered(BOB, "bob"), granted(BOB, 500))
    drain(ProjectionRunner())
    happened(debited(ALICE, 1), debited(BOB, 2), debited(ALICE, 4), refunded(ALICE, 1))
    drain(ProjectionRunner())
    assert balances() == [(ALICE, 496), (BOB, 498)]
