"""Response, cancellation or deadline: whoever is first ends a message, in forced races."""

import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Barrier
from uuid import UUID

import pytest
from django.db import connection
from pytest_django import Settings

from accounts.commands import RegisterUser, register_user
from accounts.domain import Account
from conversations import responders
from conversations.commands import cancel_message, fail_message, respond_to_message
from conversations.domain import Exchange, Usage
from conversations.ends import Ended, end_of
from conversations.generation import generate
from conversations.reply_streams import Delta, Transcript, reply_streams
from conversations.responders import Prompt, Reply
from eventstore.database import THREADS_MAX, StoreUnavailable
from eventstore.log import EventLog, event_log
from tests.conversations.conftest import CAUSE, Send
from tests.faults.counts import count
from tests.stack.ledger_check import SELECT, Ledger

SEED = 20_261_122
RACES = count(short=250, full=1_000)
#: Races that are under way at once, each with three threads of its own.
LANES = 4
#: How far apart the three may start.
SPREAD_SECONDS = 0.003
WAIT_SECONDS_MAX = 60

GRANT = 1_000_000
FLAT_PRICE = 100
USAGE_PRICE = 112  # 8000 * 10 / 1000 + 1024 * 31 / 1000, rounded up
SAID = "Once upon a "
WHOLE = "Once upon a time"
PROMPT_TOKENS = 200
USED = Usage(prompt_tokens=1_000, completion_tokens=500, estimated=False)


@dataclass
class Race:
    """One message, what has been said of its response, and how long each racer hesitates."""

    message_id: UUID
    user_id: UUID
    by_usage: bool
    has_text: bool
    delays: tuple[float, float, float]

    def cost(self, status: str) -> int:
        """What the contract lets it cost, by who won."""
        if status == "failed" or (status == "cancelled" and not self.has_text):
            return 0
        if not self.by_usage:
            return FLAT_PRICE
        # By usage 1000 * 10 / 1000 + 500 * 31 / 1000; so far 200 * 10 / 1000 + 3 * 31 / 1000.
        return 26 if status == "done" else 3

    @property
    def price(self) -> int:
        return USAGE_PRICE if self.by_usage else FLAT_PRICE


def respond(race: Race) -> Ended | None:
    exchange = event_log().load(Exchange, race.message_id)
    time.sleep(race.delays[0])
    usage = USED if race.by_usage else None
    return respond_to_message(exchange, WHOLE, usage=usage, attempt=7, model="dummy", cause=CAUSE)


def cancel(race: Race) -> Ended | None:
    time.sleep(race.delays[1])
    return cancel_message(race.message_id, CAUSE)


def pass_the_deadline(race: Race) -> Ended | None:
    time.sleep(race.delays[2])
    return fail_message(race.message_id, "deadline", CAUSE)


RACERS: tuple[Callable[[Race], Ended | None], ...] = (respond, cancel, pass_the_deadline)
#: How a message has ended that each of them has won.
STATUSES = ("done", "cancelled", "failed")


@pytest.fixture
def send_races(settings: Settings, send: Send) -> Callable[[int], list[Race]]:
    """Send messages of two users, by both prices, with and without text so far, in mixed order."""
    settings.SIGNUP_TOKENS = GRANT
    settings.PROMPT_PRICE_PER_1000, settings.COMPLETION_PRICE_PER_1000 = 10, 31
    seeded = random.Random(SEED)

    def sending(count: int) -> list[Race]:
        users = [
            register_user(RegisterUser(name, "correct horse battery"), CAUSE).user_id
            for name in ("carol", "dave")
        ]
        races = []
        for pricing in ("message", "usage"):
            settings.PRICING = pricing
            for number in range(count // 2):
                user_id = users[number % 2]
                message_id = send(user_id, f"{pricing} {number}").message_id
                has_text = number % 4 > 1
                if has_text:
                    said = Delta(attempt=7, at=0, text=SAID, prompt_tokens=PROMPT_TOKENS)
                    reply_streams().publish(message_id, said)
                by_usage = pricing == "usage"
                races.append(Race(message_id, user_id, by_usage, has_text, delays(seeded)))
        seeded.shuffle(races)
        return races

    return sending


def delays(seeded: random.Random) -> tuple[float, float, float]:
    """One of the three starts at once, the others some time within the spread."""
    hesitates = [0.0, seeded.uniform(0, SPREAD_SECONDS), seeded.uniform(0, SPREAD_SECONDS)]
    seeded.shuffle(hesitates)
    return hesitates[0], hesitates[1], hesitates[2]


def run(races: list[Race]) -> list[list[Ended | None]]:
    """Run the races, several at a time; what each racer was told of each."""
    lanes = [races[number::LANES] for number in range(LANES)]

    def in_lane(
        racer: Callable[[Race], Ended | None], lane: list[Race], start: Barrier
    ) -> list[Ended | None]:
        told = []
        try:
            for race in lane:
                start.wait(WAIT_SECONDS_MAX)
                told.append(racer(race))
        except BaseException:
            start.abort()
            raise
        finally:
            connection.close()
        return told

    told: dict[UUID, list[Ended | None]] = {race.message_id: [] for race in races}
    with ThreadPoolExecutor(LANES * len(RACERS)) as threads:
        running = [
            (lane, threads.submit(in_lane, racer, lane, start))
            for lane, start in ((lane, Barrier(len(RACERS))) for lane in lanes)
            for racer in RACERS
        ]
        for lane, each in running:
            for race, ended in zip(lane, each.result(WAIT_SECONDS_MAX), strict=True):
                told[race.message_id].append(ended)
    return [told[race.message_id] for race in races]


def test_a_thousand_races_of_response_cancellation_and_deadline_have_one_end_each(
    send_races: Callable[[int], list[Race]],
) -> None:
    races = send_races(RACES)
    told = run(races)
    ends = {race.message_id: end_of(race.message_id) for race in races}
    for race, each in zip(races, told, strict=True):
        end = ends[race.message_id]
        assert end is not None
        # All three were told of the same end, whoever wrote it.
        assert each == [end] * len(RACERS)
        assert (end.cost, end.refunded) == (
            race.cost(end.status),
            race.price - race.cost(end.status),
        )
        assert end.response == {
            "done": WHOLE,
            "cancelled": SAID if race.has_text else None,
            "failed": None,
        }.get(end.status)
        assert end.attempt == (7 if end.response else 0)
    won = Counter(end.status for end in ends.values() if end)
    overtaken = sum(
        race.delays[STATUSES.index(end.status)] > 0
        for race, end in zip(races, ends.values(), strict=True)
        if end
    )
    print(f"seed {SEED}: {dict(won)}, {overtaken} not by the first to start")  # noqa: T201
    assert set(won) == set(STATUSES)
    # They were races: whoever starts first does not just win.
    assert overtaken > RACES / 20
    check_ledger(races, ends)


def check_ledger(races: list[Race], ends: dict[UUID, Ended | None]) -> None:
    """By plain SQL: one end each, its refund in the same append or none, balances exact."""
    with connection.cursor() as cursor:
        cursor.execute(SELECT)
        ledger = Ledger(cursor.fetchall())
    assert ledger.violations() == []
    assert ledger.messages == {str(race.message_id) for race in races}
    balances = Counter({race.user_id: GRANT for race in races})
    for race in races:
        end = ends[race.message_id]
        assert end is not None
        refunds = [end.refunded] if end.refunded else []
        assert ledger.refunds_of(str(race.message_id)) == refunds
        balances[race.user_id] -= end.cost
    for user_id, balance in balances.items():
        assert ledger.balance_of(str(user_id)) == balance
        assert EventLog().load(Account, user_id).tokens == balance
        # What the process remembers is no other state.
        assert event_log().load(Account, user_id).tokens == balance


MESSAGES_A_THREAD = 5


@pytest.mark.parametrize("end", [cancel_message, partial(fail_message, reason="deadline")])
def test_as_many_ends_of_one_user_at_once_as_a_process_has_threads_are_all_written(
    alice: UUID, send: Send, settings: Settings, end: Callable[..., Ended | None]
) -> None:
    settings.MESSAGE_PRICE = 1
    messages = [send(alice).message_id for _ in range(THREADS_MAX * MESSAGES_A_THREAD)]
    start = Barrier(THREADS_MAX)

    def end_some(number: int) -> list[str]:
        said = []
        try:
            start.wait(WAIT_SECONDS_MAX)
            for message_id in messages[number::THREADS_MAX]:
                try:
                    ended = end(message_id, cause=CAUSE)
                    said.append(ended.status if ended else "unknown")
                except StoreUnavailable as error:
                    said.append(str(error))
        finally:
            connection.close()
        return said

    with ThreadPoolExecutor(THREADS_MAX) as threads:
        said = Counter(each for some in threads.map(end_some, range(THREADS_MAX)) for each in some)
    assert set(said) <= {"cancelled", "failed"}, said
    assert said.total() == len(messages)
    assert EventLog().load(Account, alice).tokens == 4000


STREAMS = 40
PIECES = [f"{number} " for number in range(40)]
PIECE_SECONDS = 0.001


def test_a_cancellation_keeps_what_readers_have_seen_of_a_stream_and_nothing_more(
    alice: UUID, send: Send, settings: Settings
) -> None:
    class Counting:
        model = "counting"
        waits = False

        def respond(self, prompt: Prompt, reply: Reply) -> None:
            for piece in PIECES:
                reply.say(piece)
                time.sleep(PIECE_SECONDS)

    responders.registered["counting"] = Counting
    settings.RESPONDER = "counting"
    seeded = random.Random(SEED)
    messages = [send(alice).message_id for _ in range(STREAMS)]
    cancelled_after = [seeded.uniform(0, 1.5 * len(PIECES) * PIECE_SECONDS) for _ in messages]

    def generate_one(message_id: UUID) -> None:
        try:
            generate(message_id)
        finally:
            connection.close()

    def cancel_one(message_id: UUID, after: float) -> None:
        try:
            time.sleep(after)
            cancel_message(message_id, CAUSE)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as threads:
        for message_id, after in zip(messages, cancelled_after, strict=True):
            working = threads.submit(generate_one, message_id)
            threads.submit(cancel_one, message_id, after).result(WAIT_SECONDS_MAX)
            working.result(WAIT_SECONDS_MAX)
    reply_streams().forget([])
    spent = 0
    statuses = Counter[str]()
    for message_id in messages:
        end = end_of(message_id)
        assert end is not None
        statuses[end.status] += 1
        seen = Transcript()
        for item in reply_streams().close(message_id):
            seen.take(item)
        if end.status == "cancelled":
            assert seen.text == (end.response or "")
        else:
            # What a busy Redis did not take in time, readers get from the stored response.
            assert (end.response or "").startswith(seen.text)
        assert "".join(PIECES).startswith(seen.text)
        assert end.cost == (FLAT_PRICE if end.response else 0)
        spent += end.cost
    print(f"seed {SEED}: {dict(statuses)}")  # noqa: T201
    assert set(statuses) == {"cancelled", "done"}
    assert EventLog().load(Account, alice).tokens == 4000 - spent
