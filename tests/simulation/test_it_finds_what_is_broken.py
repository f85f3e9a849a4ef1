"""Without any one of these guards the simulation fails: each is taken out once, and missed."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

import eventstore.append
import projections.applying
import projections.parking
from accounts.domain import Account, AccountDeactivated, TokensDebited
from conversations import commands
from conversations.cancel_first import CancelFirst
from conversations.domain import Exchange
from conversations.ends import Ended
from conversations.sweeper import Sweeper
from eventstore import keys
from eventstore.cause import Cause
from eventstore.decisions import Append, View
from eventstore.writer import decide_together
from projections import positions
from projections.positions import Place
from projections.sql import Command
from tests.simulation import rounds
from tests.simulation.world import Violated

#: Rounds, and worlds in each, in which any of the breaks has to be seen.
SEEDS, WORLDS = 2, 12

Break = Callable[[pytest.MonkeyPatch], None]

BREAKS: list[Any] = []


def broken(guarantees: str) -> Callable[[Break], Break]:
    """A guard taken out, and the guarantees of which one at least must be seen to be missed."""

    def note(function: Break) -> Break:
        BREAKS.append(pytest.param(function, guarantees, id=function.__name__))
        return function

    return note


@broken("3|4|6")
def the_version_2_rule(patch: pytest.MonkeyPatch) -> None:
    """Each event gets the version that is next, whatever was decided on."""
    row = eventstore.append._sqlite_row

    def renumbered(*values: Any) -> tuple[Any, ...]:
        of_row, stream, _, *rest = row(*values)
        return (of_row, stream, stream, *rest)

    following = "(SELECT count(*) + 1 FROM eventstore_event WHERE stream_id = ?)"
    insert = eventstore.append._inserting(1).replace(
        "VALUES (?, ?, ?,", f"VALUES (?, ?, {following},"
    )
    # A row a statement, so that each sees the one before it.
    patch.setattr(eventstore.append, "ROWS_MAX", 1)
    patch.setattr(eventstore.append, "_inserting", lambda _: insert)
    patch.setattr(eventstore.append, "_sqlite_row", renumbered)


@broken("6")
def the_look_up_by_message_id(patch: pytest.MonkeyPatch) -> None:
    def blind(view: View, kind: Any, stream_id: Any, **how: Any) -> Any:
        return None if kind is Exchange else view.find(kind, stream_id, **how)

    really = commands.sending

    def sending(command: Any, cause: Cause) -> Any:
        decision = really(command, cause)
        return lambda view: decision(_With(view, find=blind))  # type: ignore[arg-type]  # all else

    patch.setattr(commands, "sending", sending)


@broken("4|5")
def the_one_append_of_an_end_and_its_refund(patch: pytest.MonkeyPatch) -> None:
    def in_two(_: View, exchange: Exchange, end: Ended, *, reason: str, cause: Cause) -> Any:
        def refund(view: View) -> int | Append[int]:
            account = view.load(Account, exchange.user_id)
            account.refund(end.refunded, message_id=exchange.id, reason=reason)
            return Append((account,), cause, int)

        def refunded(position: int) -> Ended:
            if end.refunded:
                decide_together(refund)
            return replace(end, position=position)

        return Append((exchange,), cause, refunded)

    patch.setattr(commands, "_append_end", in_two)


@broken("7")
def the_sweeper(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sweeper, "step", lambda _: False)


@broken("1")
def the_check_of_the_balance(patch: pytest.MonkeyPatch) -> None:
    def debit(account: Account, amount: int, *, message_id: Any) -> None:
        if not account.active:
            raise AccountDeactivated
        account.trigger(TokensDebited, amount=amount, message_id=message_id)

    patch.setattr(Account, "debit", debit)


@broken("8|unexpected")
def the_compare_and_set_of_the_position(patch: pytest.MonkeyPatch) -> None:
    def move(places: Sequence[Place], position: int) -> Command:
        keys = " OR ".join(
            f"(name, generation) = {place.name, place.generation}" for place in places
        )
        return Command(f"UPDATE projections_position SET position = {position} WHERE {keys}", [])

    for module in (positions, projections.applying, projections.parking):
        patch.setattr(module, "move", move)


@broken("3")
def the_cancelling_before_a_deletion(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CancelFirst, "cancel_all", lambda _, account, __: (account, []))


@broken("12")
def the_destruction_of_an_erased_users_keys(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(keys, "destroy_user", lambda _: None)


@pytest.mark.parametrize(("take_out", "guarantees"), BREAKS)
def test_it_is_missed(take_out: Break, guarantees: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take_out(monkeypatch)
    with pytest.raises(Violated, match=rf"(^|; )({guarantees}): ") as found:
        for seed in range(SEEDS):
            rounds.run(seed, worlds=WORLDS, shrinking=False)
    assert re.search("again: CHATLEDGER_SEED=[0-9]+ ", "".join(found.value.__notes__))


class _With:
    """Something with one of its methods put in."""

    def __init__(self, all_else: Any, **methods: Any) -> None:
        self._all_else = all_else
        self._methods = methods

    def __getattr__(self, name: str) -> Any:
        if name in self._methods:
            return lambda *args, **kwargs: self._methods[name](self._all_else, *args, **kwargs)
        return getattr(self._all_else, name)
