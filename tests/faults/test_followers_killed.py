"""Followers die between rows and position, and two of them follow at once."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from signal import Signals

from tests.faults.checker import check
from tests.faults.counts import count
from tests.faults.journal import Journal
from tests.faults.proxied import ProxiedService
from tests.faults.proxy import Trap
from tests.figures import Figure
from tests.stack.client import User
from tests.stack.services import wait_for

FOLLOWERS = ("followers-1", "followers-2")
MOVES = "UPDATE projections_position"
KILLS = count(short=3, full=50)
SENT = 5
#: A dead follower's lease has to run out before the other goes on.
TAKEN_OVER_SECONDS_MAX = 20.0
TOGETHER = count(short=100, full=1_000)
THREADS = 8


def test_followers_killed_between_rows_and_position_apply_nothing_twice(
    shared: ProxiedService, figure: Figure
) -> None:
    user, journal = shared.user("followers-killed"), Journal()
    recovered = []
    died_at: list[float] = []

    def kill(name: str) -> None:
        shared.stack.processes[name].send(Signals.SIGKILL)
        died_at.append(time.monotonic())

    for number in range(KILLS):
        died_at.clear()
        # Position and rows go out together: it dies as they go, or before the last of them went.
        traps = {
            name: shared.postgres(name).call_when(
                MOVES, partial(kill, name), forwarded=number % 2 == 0
            )
            for name in FOLLOWERS
        }
        for sent in range(SENT):
            journal.send(user, f"message {number}", f"{number}-{sent}", prefer="respond-async")
        wait_for(partial(one_has_sprung, [*traps.values()]), 10, "a follower to die")
        for trap in traps.values():
            trap.disarm()
        for name, trap in traps.items():
            if trap.cuts:
                shared.stack.processes[name].wait(10)
                shared.stack.start(name)
        due = shared.ledger().balance_of(user.id)
        wait_for(partial(has, user, due), TAKEN_OVER_SECONDS_MAX, "the read models")
        # Since the death: a send waits for the read models for a while, so that time goes by.
        recovered.append(time.monotonic() - died_at[0])
    figure("seconds from a follower's death to the read models' being up to date", recovered)
    check(shared, journal)


def one_has_sprung(traps: list[Trap]) -> bool:
    return any(trap.cuts for trap in traps)


def has(user: User, tokens: int) -> bool:
    return user.tokens() == tokens


def test_two_followers_at_once_apply_each_event_once(shared: ProxiedService) -> None:
    users, journal = [shared.user(f"together-{n}") for n in range(THREADS)], Journal()
    moves = [shared.postgres(name).call_when(MOVES, int, times=10**6) for name in FOLLOWERS]
    # Without Redis there are no leases: both of them follow.
    for name in FOLLOWERS:
        shared.redis(name).stop()
    try:
        with ThreadPoolExecutor(THREADS) as clients:
            sent = list(
                clients.map(
                    lambda n: journal.send(users[n % THREADS], "hello", f"t-{n}", prefer="wait=10"),
                    range(TOGETHER),
                )
            )
        assert all(entry.accepted for entry in sent)
        check(shared, journal)
        # Both were at it.
        assert all(trap.cuts > 1 for trap in moves)
    finally:
        for trap in moves:
            trap.disarm()
        for name in FOLLOWERS:
            shared.redis(name).start()
