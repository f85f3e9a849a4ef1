"""Redis restarts empty, forgets everything under load, or is away: the broker is only a hint.

Each send is answered 201 or 202 all the same, and each message ends (7).
"""

import time
from collections.abc import Callable, Iterator
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
MESSAGES_A_USER = 25
FLUSH_PAUSE_SECONDS = 0.05
RESTART_PAUSE_SECONDS = 1.0
#: What a client may notice of a Redis that is away: its time-outs, of which a process has few.
SEND_SECONDS_MAX = 5.0


@pytest.fixture(scope="module")
def full() -> Iterator[FullService]:
    with TemporaryDirectory(prefix="chatledger-") as folder, FullService(Path(folder)) as running:
        yield running


def some_users(full: FullService, name: str) -> list[User]:
    return [full.user(f"{name}-{number}") for number in range(-(-SENDS // MESSAGES_A_USER))]


def send_all(users: list[User], prefer: str) -> tuple[set[str], list[float]]:
    """Send in parallel; the ids of the messages, and how long each answer took."""

    def send(number: int) -> tuple[str, float]:
        began = time.monotonic()
        answer = users[number % len(users)].send("hello", prefer=prefer)
        assert answer.status_code in (201, 202), answer.text
        return answer.headers["location"].split("/")[2], time.monotonic() - began

    with ThreadPoolExecutor(CLIENTS) as clients:
        sent = list(clients.map(send, range(SENDS)))
    return {message_id for message_id, _ in sent}, [seconds for _, seconds in sent]


@pytest.mark.parametrize("fault", ["flushall", "restart_empty"])
def test_a_redis_that_forgets_everything_under_load_costs_seconds_and_no_message(
    full: FullService, fault: str, figure: Figure
) -> None:
    users = some_users(full, fault.replace("_", "-"))
    client = redis.Redis.from_url(full.stack.redis.url)
    forget: dict[str, tuple[Callable[[], object], float]] = {
        "flushall": (client.flushall, FLUSH_PAUSE_SECONDS),
        "restart_empty": (full.stack.redis.restart_empty, RESTART_PAUSE_SECONDS),
    }
    act, pause_seconds = forget[fault]
    times = 0
    with ThreadPoolExecutor(1) as sending, client:
        sent = sending.submit(send_all, users, "wait=2")
        while not sent.done() or not times:
            act()
            times += 1
            time.sleep(pause_seconds)
        messages, seconds = sent.result()
    began = time.monotonic()
    ledger = check(full)
    figure("seconds of a send", seconds)
    figure("seconds from the last send to rest", [time.monotonic() - began])
    assert len(messages) == SENDS
    assert messages <= ledger.messages
    assert {ledger.end_of(each).kind for each in messages} == {"ResponseGenerated"}


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
def test_a_redis_that_is_away_refuses_no_send_and_delays_the_responses(
    full: FullService, fault: str, figure: Figure
) -> None:
    users = some_users(full, fault)
    redis_child = full.stack.redis.child
    if fault == "stopped":
        full.stack.redis.stop()
    else:
        redis_child.send(Signals.SIGSTOP)
    try:
        messages, seconds = send_all(users, "respond-async")
        assert users[0].tokens() == 4000 - 100 * MESSAGES_A_USER
        assert messages <= full.ledger().pending
    finally:
        if fault == "stopped":
            full.stack.redis.start()
        else:
            redis_child.send(Signals.SIGCONT)
    began = time.monotonic()
    ledger = check(full)
    figure("seconds of a send", seconds)
    figure("seconds from the return to rest", [time.monotonic() - began])
    assert max(seconds) < SEND_SECONDS_MAX
    assert len(messages) == SENDS
    assert {ledger.end_of(each).kind for each in messages} == {"ResponseGenerated"}
    assert users[0].send("hello").status_code == 201
