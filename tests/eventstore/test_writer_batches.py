"""Several commands decided and committed together: what each sees, and who hears of it.

Batches here are carried out in the test's own thread, so that who shares a commit is known.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import DatabaseError, connection
from eventsourcing.persistence import IntegrityError
from pytest_django import Settings

from accounts.domain import Account, InsufficientTokens
from conversations import commands
from conversations.commands import Accepted, ConversationNotFound, SendMessage, message_id_for
from conversations.domain import Conversation, ConversationStarted, Exchange
from conversations.ends import Ended
from eventstore.database import StoreUnavailable
from eventstore.decisions import Append, Decision, View
from eventstore.domain import Refused
from eventstore.gathering import Gathering, gathered
from eventstore.log import EventLog, event_log
from eventstore.reading import max_position, read_events, read_stream
from eventstore.writer import Command, decide_together, deciding_together
from tests.eventstore.deciding import (
    PRICE,
    ROUNDS_MAX,
    WAIT_SECONDS_MAX,
    Unstorable,
    a_send,
    around_the_commit,
    asked,
    assert_contiguous,
    beginning,
    carry_out,
    credit_elsewhere,
    cut_off,
    of_kind,
    refusal,
    result,
    starting,
    to_rest,
    tokens,
)
from tests.eventstore.making import CAUSE

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("here", [False, True])
def test_what_follows_a_batch_is_handed_over_together(*, here: bool) -> None:
    told: list[tuple[bool, list[int]]] = []
    me = threading.get_ident()

    def deliver(positions: Sequence[int]) -> None:
        told.append((threading.get_ident() == me, sorted(positions)))

    positions = Gathering[int]("positions", deliver, "positions are lost")
    with gathered(here=True) if here else nullcontext():
        assert carry_out(*(asked(starting(uuid4()), positions.add) for _ in range(3))) == []
    assert positions.flush(5)
    assert told == [(here, [1, 2, 3])]


def test_two_sends_of_one_account_share_a_commit(alice: UUID) -> None:
    before = max_position()
    first, second = a_send(alice), a_send(alice)
    assert carry_out(first, second) == []
    one, other = result(first), result(second)
    assert [event.topic.rsplit(".", 1)[1] for event in read_events(before)] == [
        "TokensDebited",
        "ConversationStarted",
        "MessageSent",
        "TokensDebited",
        "MessageSent",
    ]
    assert (one.position, other.position) == (before + 3, before + 5)
    for accepted in (one, other):
        (sent,) = read_stream(accepted.message_id)
        assert sent.position == accepted.position
        assert not accepted.repeated
    assert len({event.at for event in read_events(before)}) == 1
    assert_contiguous()
    assert tokens(alice) == 3800
    assert vars(event_log().load(Account, alice)) == vars(EventLog().load(Account, alice))


def test_a_send_that_those_before_it_leave_nothing_for_is_decided_again_and_then_refused(
    alice: UUID, settings: Settings
) -> None:
    settings.MESSAGE_PRICE = 2000
    sends = [a_send(alice) for _ in range(3)]
    assert carry_out(*sends) == [sends[2]]
    assert all(not result(each).repeated for each in sends[:2])
    assert not sends[2].done.done()
    assert carry_out(sends[2]) == []
    assert isinstance(refusal(sends[2]), InsufficientTokens)
    assert tokens(alice) == 0
    assert len(of_kind("TokensDebited")) == 2


def test_credit_that_comes_from_elsewhere_meanwhile_pays_for_it(
    alice: UUID, settings: Settings
) -> None:
    settings.MESSAGE_PRICE = 2000
    sends = [a_send(alice) for _ in range(3)]
    again = carry_out(*sends)
    credit_elsewhere(alice, 2000)
    to_rest(again)
    assert not result(sends[2]).repeated
    assert tokens(alice) == 0
    assert_contiguous()


def test_a_refusal_because_of_what_is_not_stored_in_the_end_is_none(
    alice: UUID, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.MESSAGE_PRICE = 4000
    first, second = a_send(alice), a_send(alice)
    first.fresh = second.fresh = True
    # The second is refused because of the first, whose commit fails for good.
    cut_off(monkeypatch, stored=False)
    assert carry_out(first, second) == [second]
    assert isinstance(refusal(first), StoreUnavailable)
    to_rest([second])
    assert not result(second).repeated


def test_the_same_key_twice_in_one_batch_is_one_message(alice: UUID) -> None:
    first, second, other = a_send(alice, key="k"), a_send(alice, key="k"), a_send(alice)
    # It is no conflict, which would take the third along.
    assert carry_out(first, second, other) == [second]
    to_rest([second])
    assert (result(first).repeated, result(second).repeated) == (False, True)
    assert result(first).message_id == result(second).message_id
    assert tokens(alice) == 3800
    assert len(of_kind("TokensDebited")) == 2


@pytest.mark.parametrize("times", range(1, 5))
def test_nobody_is_told_of_a_message_that_is_not_stored(
    alice: UUID, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    sends = [a_send(alice, key="k") for _ in range(3)]
    cut_off(monkeypatch, stored=False, times=times)
    batch: list[Command[Any]] = list(sends)
    for _ in range(ROUNDS_MAX):
        batch = carry_out(*batch)
        told = [result(each) for each in sends if each.done.done() and not refusal(each)]
        assert not told or len(of_kind("MessageSent")) == 1
    assert batch == []
    assert len(of_kind("TokensDebited")) == len(of_kind("MessageSent")) <= 1
    refused = [refusal(each) for each in sends if refusal(each)]
    assert all(isinstance(each, StoreUnavailable) for each in refused)


@around_the_commit
def test_of_two_with_one_key_one_is_the_sender_also_when_a_commit_is_lost(
    alice: UUID, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    sends = [a_send(alice, key="k") for _ in range(2)]
    cut_off(monkeypatch, stored=when == "after")
    to_rest(sends)
    assert sorted(result(each).repeated for each in sends) == [False, True]


def test_a_repeat_whose_commit_is_lost_is_a_repeat(
    alice: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_rest([a_send(alice, key="k")])
    again = a_send(alice, key="k")
    cut_off(monkeypatch, stored=False)
    to_rest([again])
    assert result(again).repeated


def test_an_answer_that_rests_on_what_is_not_stored_yet_is_given_when_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = uuid4()
    start, look = asked(starting(stream)), asked(lambda view: bool(view.find(Conversation, stream)))
    start.fresh = True
    cut_off(monkeypatch, stored=False)
    assert carry_out(start, look) == [look]
    assert isinstance(refusal(start), StoreUnavailable)
    to_rest([look])
    assert result(look) is False


def test_two_ends_of_one_message_in_one_batch_are_one(alice: UUID) -> None:
    message_id = decide_together(a_send(alice).decision).message_id
    exchange = event_log().load(Exchange, message_id)

    def fail(current: Exchange, view: View) -> Any:
        current.fail("responder")
        end = Ended(0, "failed", 0, current.price, reason="responder")
        return commands._append_end(view, current, end, reason="responder", cause=CAUSE)

    respond = asked(
        commands.responding(
            exchange, "Hi there!", usage=None, attempt=1, model="dummy", cause=CAUSE
        )
    )
    failing, other = asked(commands._ending(exchange, fail)), a_send(alice)
    to_rest([failing, respond, other])
    assert result(failing) == result(respond)
    assert len(read_stream(message_id)) == 2
    assert len(of_kind("TokensRefunded")) == (result(failing).status == "failed")
    assert tokens(alice) == 4000 - result(failing).cost - PRICE
    assert_contiguous()


# One that cannot be carried out


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda: beginning(Unstorable), id="stored"),
        pytest.param(lambda: beginning(ConversationStarted, user_id=object()), id="encoded"),
        pytest.param(lambda: beginning(ConversationStarted, title="no key"), id="encrypted"),
        pytest.param(lambda: _raising(ZeroDivisionError), id="decided"),
        pytest.param(lambda: _raising(IntegrityError), id="decided without a conflict"),
    ],
)
def test_a_command_that_cannot_be_carried_out_fails_alone(
    alice: UUID, bob: UUID, broken: Callable[[], Decision[int]]
) -> None:
    poisoned = asked(broken(), then=lambda _: pytest.fail("it was carried out"))
    sends = [a_send(alice), a_send(bob), a_send(alice)]
    to_rest(carry_out(sends[0], poisoned, *sends[1:]))
    assert refusal(poisoned) is not None
    assert not isinstance(refusal(poisoned), StoreUnavailable | Refused)
    for each in sends:
        (sent,) = read_stream(result(each).message_id)
        assert sent.position == result(each).position
        assert not result(each).repeated
    assert (tokens(alice), tokens(bob)) == (3800, 3900)
    assert_contiguous()


def _raising(error: type[Exception]) -> Decision[int]:
    def decision(_: View) -> int:
        raise error

    return decision


def test_what_cannot_be_stored_alone_takes_nothing_of_its_stream_along(
    alice: UUID, settings: Settings
) -> None:
    """The sends after a poisoned one of the same account are decided without it."""
    settings.MESSAGE_PRICE = 2000

    def decision(view: View) -> Append[int]:
        account = view.load(Account, alice)
        account.debit(2000, message_id=uuid4())
        broken = Conversation.begin(Unstorable, uuid4(), user_id=alice, title=None)
        return Append((account, broken), CAUSE, int)

    poisoned, sends = asked(decision), [a_send(alice) for _ in range(3)]
    to_rest(carry_out(poisoned, *sends))
    assert isinstance(refusal(poisoned), DatabaseError)
    assert [type(refusal(each)) for each in sends] == [type(None), type(None), InsufficientTokens]
    assert tokens(alice) == 0
    assert_contiguous()


# Who hears of it


def test_what_follows_is_done_once_for_each_success_before_anybody_hears(
    alice: UUID, bob: UUID, settings: Settings
) -> None:
    to_rest([a_send(alice)])
    settings.MESSAGE_PRICE = 2000
    credit_elsewhere(alice, 50)
    followed: list[tuple[int, bool]] = []
    sends: list[Command[Accepted]] = []

    def then(number: int) -> Callable[[Accepted], None]:
        def note(accepted: Accepted) -> None:
            followed.append((number, sends[number].done.done()))
            assert len(read_stream(accepted.message_id)) == 1

        return note

    # The second is a repeat, the third is not covered, and all of hers conflict at first.
    keys = ((alice, "k"), (alice, "k"), (alice, None), (bob, None))
    sends += [a_send(user, key=key, then=then(at)) for at, (user, key) in enumerate(keys)]
    to_rest(sends)
    assert sorted(followed) == [(0, False), (1, False), (3, False)]
    assert isinstance(refusal(sends[2]), InsufficientTokens)


def test_what_follows_and_fails_harms_nobody(
    alice: UUID, bob: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    followed: list[Accepted] = []

    def fail(_: Accepted) -> None:
        raise ZeroDivisionError("nobody foresaw it")

    sends = [a_send(alice, then=fail), a_send(bob, then=followed.append)]
    assert carry_out(*sends) == []
    assert [result(sends[1])] == followed
    assert not result(sends[0]).repeated
    assert "what follows a commit failed" in caplog.text


def test_callers_on_two_loops_and_in_threads_all_hear(alice: UUID, bob: UUID) -> None:
    loops = [asyncio.new_event_loop() for _ in range(2)]
    runs = [threading.Thread(target=loop.run_forever, daemon=True) for loop in loops]
    for run in runs:
        run.start()

    async def future() -> "asyncio.Future[Accepted]":
        return asyncio.get_running_loop().create_future()

    async def heard(done: "asyncio.Future[Accepted]") -> object:
        try:
            return await done
        except Refused as error:
            return error

    try:
        batch: list[Command[Any]] = []
        for loop in loops * 2:
            done = asyncio.run_coroutine_threadsafe(future(), loop).result(WAIT_SECONDS_MAX)
            order = SendMessage(bob, None, uuid4(), "hello")
            batch.append(Command(commands.sending(order, CAUSE), done))
        nowhere = SendMessage(bob, uuid4(), uuid4(), "hello")
        done = asyncio.run_coroutine_threadsafe(future(), loops[0]).result(WAIT_SECONDS_MAX)
        batch.append(Command(commands.sending(nowhere, CAUSE), done))
        batch += [a_send(alice), a_send(alice)]
        to_rest(batch)
        answers: list[Any] = []
        for command in batch:
            waiting: Any = command.done
            if isinstance(waiting, Future):
                answers.append(waiting.result(0))
            else:
                hearing = asyncio.run_coroutine_threadsafe(heard(waiting), waiting.get_loop())
                answers.append(hearing.result(WAIT_SECONDS_MAX))
    finally:
        for loop, run in zip(loops, runs, strict=True):
            loop.call_soon_threadsafe(loop.stop)
            run.join(WAIT_SECONDS_MAX)
            loop.close()
    assert isinstance(answers.pop(4), ConversationNotFound)
    for accepted in answers:
        assert read_stream(accepted.message_id)[0].position == accepted.position
    assert len({accepted.message_id for accepted in answers}) == 6


def test_callers_on_a_loop_that_is_gone_keep_nobody_from_hearing(alice: UUID) -> None:
    loop = asyncio.new_event_loop()
    orphan = Command(a_send(alice).decision, loop.create_future())
    loop.close()
    other = a_send(alice)
    assert carry_out(orphan, other) == []
    assert not result(other).repeated
    assert len(of_kind("MessageSent")) == 2


def test_a_command_whose_caller_went_away_is_carried_out_all_the_same(alice: UUID) -> None:
    followed: list[Accepted] = []

    async def hang_up() -> Accepted:
        decision = a_send(alice, key="k").decision
        gone, other = deciding_together(decision, followed.append), a_send(alice)
        gone.cancel()
        return await deciding_together(other.decision)

    assert not asyncio.run(asyncio.wait_for(hang_up(), WAIT_SECONDS_MAX)).repeated
    assert len(followed) == 1
    assert len(read_stream(message_id_for(alice, "k"))) == 1
    assert tokens(alice) == 3800


@pytest.mark.parametrize("error", [ZeroDivisionError, StopIteration])
def test_a_decision_that_raises_what_nobody_foresaw_fails_alone_on_a_loop_too(
    alice: UUID, error: type[Exception]
) -> None:
    async def ask() -> list[Any]:
        loop = asyncio.get_running_loop()
        broken = Command(_raising(error), loop.create_future())
        other = Command(a_send(alice).decision, loop.create_future())
        await asyncio.to_thread(_apart, broken, other)
        return list(await asyncio.gather(broken.done, other.done, return_exceptions=True))  # type: ignore[arg-type]  # asyncio's

    failed, accepted = asyncio.run(asyncio.wait_for(ask(), WAIT_SECONDS_MAX))
    assert isinstance(failed, error | RuntimeError)
    assert not accepted.repeated


def _apart(*batch: Command[Any]) -> None:
    try:
        to_rest(batch)
    finally:
        connection.close()
