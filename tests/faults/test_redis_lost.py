"""Redis restarts empty, forgets everything under load, or is away: the broker is only a hint.

Each send is answered 201 or 202 all the same, and each message ends (7).
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import Signals
from tempfile import TemporaryDirectory

import pytest
import redis

from tests.faults.checker import check
from tests.faults.counts import count
from tests.figures import Figure
from tests.stack.client import User
from tests.stack.services import FullService

SENDS = count(short=50, full=500)
CLIENTS = 16
MESSAGES_A_USER = 20
FLUSH_PAUSE_SECONDS = 0.05
FLUSHES_A_RESTART = 20
#: What a client may notice of a Redis that is away: its time-outs, of which a process has few.
SEND_SECONDS_MAX = 5.0


@pytest.fixture(scope="module")
def full() -> Iterator[FullService]:
    with TemporaryDirectory(prefix="chatledger-") as folder, FullService(Path(folder)) as running:
        yield running


def some_users(full: FullService, name: str) -> list[User]:
    return [full.user(f"{name}-{number}") for number in range(-(-SENDS // MESSAGES_A_USER))]


def send_all(users: list[User], prefer: str, number: int = SENDS) -> tuple[set[str], list[float]]:
    """Send in parallel; the ids of the messages, and how long each answer took."""

    def send(nth: int) -> tuple[str, float]:
        began = time.monotonic()
        answer = users[nth % len(users)].send("hello", prefer=prefer)
        assert answer.status_code in (201, 202), answer.text
        return answer.headers["location"].split("/")[2], time.monotonic() - began

    with ThreadPoolExecutor(CLIENTS) as clients:
        sent = list(clients.map(send, range(number)))
    return {message_id for message_id, _ in sent}, [seconds for _, seconds in sent]


def test_a_redis_that_forgets_everything_under_load_costs_seconds_and_no_message(
    full: FullService, figure: Figure
) -> None:
    users = some_users(full, "forgotten")
    flushed = restarted = 0
    with (
        ThreadPoolExecutor(1) as sending,
        redis.Redis.from_url(full.stack.redis.url) as client,
    ):
        sent = sending.submit(send_all, users, "wait=2")
        while not sent.done() or not restarted:
            for _ in range(FLUSHES_A_RESTART):
                client.flushall()
                flushed += 1
                time.sleep(FLUSH_PAUSE_SECONDS)
            full.stack.redis.restart_empty()
            restarted += 1
        messages, seconds = sent.result()
    began = time.monotonic()
    ledger = check(full)
    figure("times everything was flushed", [flushed])
    figure("times Redis restarted empty", [restarted])
    figure("seconds of a send", seconds)
    figure("seconds from the last send to rest", [time.monotonic() - began])
    assert len(messages) == SENDS
    assert messages <= ledger.messages
    assert {ledger.end_of(each).kind for each in messages} == {"ResponseGenerated"}


def test_a_redis_that_is_away_refuses_no_send_and_delays_the_responses(
    full: FullService, figure: Figure
) -> None:
    users = some_users(full, "patient")
    server = full.stack.redis
    # It takes connections and says nothing; then nobody takes them.
    server.child.send(Signals.SIGSTOP)
    messages, frozen_seconds = send_all(users[::2], "respond-async", SENDS // 2)
    server.child.kill()
    more, away_seconds = send_all(users[1::2], "respond-async", SENDS // 2)
    messages |= more
    assert users[0].tokens() < 4000
    assert messages <= full.ledger().pending
    server.start()
    began = time.monotonic()
    ledger = check(full)
    figure("seconds of a send while Redis is frozen", frozen_seconds)
    figure("seconds of a send while nobody listens", away_seconds)
    figure("seconds from the return to rest", [time.monotonic() - began])
    assert max(*frozen_seconds, *away_seconds) < SEND_SECONDS_MAX
    assert len(messages) == SENDS
    assert {ledger.end_of(each).kind for each in messages} == {"ResponseGenerated"}
    assert users[0].send("hello").status_code == 201
