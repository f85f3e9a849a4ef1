"""A broker message is delivered twice; a worker is stalled past its lease and its heartbeat.

However often somebody works on a message, it has one end and one refund at most (3, 4).
"""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from tempfile import TemporaryDirectory

import pytest
import redis

from devstack.application import PROJECT
from tests.faults.checker import check
from tests.faults.counts import FULL, count
from tests.figures import Figure
from tests.stack.client import User
from tests.stack.services import FullService, wait_for

#: In short everything takes a fifth of the time that is shipped.
HASTE = 1 if FULL else 5
HEARTBEAT_SECONDS = 15.0 / HASTE
LEASE_SECONDS = 10.0 / HASTE
RESPONSE_SECONDS = 1.0
ROUNDS = count(short=3, full=50)
AT_ONCE = 8
ROUNDS_A_USER = 4
DELIVERIES = 3
STALLED = 8
REST_SECONDS = 60.0


@dataclass
class Slow:
    """A stack of two workers who take their time, and what they were asked."""

    full: FullService
    calls_file: Path

    @property
    def calls(self) -> Counter[str]:
        return Counter(self.calls_file.read_text().split())


@pytest.fixture(scope="module")
def slow() -> Iterator[Slow]:
    with TemporaryDirectory(prefix="chatledger-") as folder:
        calls = Path(folder) / "calls"
        calls.touch()
        worker = [sys.executable, "-m", "tests.stack.slow_worker", str(RESPONSE_SECONDS)]
        with FullService(
            Path(folder) / "stack",
            workers=2,
            commands={"worker": [*worker, str(calls)]},
            extra_env={"CHATLEDGER_TESTS_HASTE": str(HASTE)},
        ) as full:
            yield Slow(full, calls)


def send(user: User, number: int) -> list[str]:
    answers = [user.send(f"message {n}", prefer="respond-async") for n in range(number)]
    assert {answer.status_code for answer in answers} == {202}
    return [answer.json()["id"] for answer in answers]


class Again:
    """A process that brings messages to the broker again, at once."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        assert self._line() == "ready"

    def bring(self, messages: list[str]) -> None:
        for message_id in messages:
            assert self._process.stdin
            self._process.stdin.write(f"{message_id}\n")
            self._process.stdin.flush()
            assert self._line() == str(DELIVERIES)

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@pytest.fixture
def again(slow: Slow) -> Iterator[Again]:
    command = [sys.executable, "-m", "tests.faults.enqueue_again", str(DELIVERIES)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=slow.full.environment(), cwd=PROJECT, stdin=pipe, stdout=pipe, text=True
    ) as process:
        try:
            yield Again(process)
        finally:
            process.kill()


def wait_for_an_empty_broker(full: FullService) -> None:
    """Until everything that was brought has been fetched, worked on and acknowledged."""
    with redis.Redis.from_url(full.stack.redis.url) as client:
        wait_for(
            lambda: not [*client.scan_iter("dramatiq:default*"), *client.scan_iter("*acks*")],
            REST_SECONDS,
            "the broker to be empty",
        )


def test_what_is_delivered_many_times_ends_once(slow: Slow, again: Again) -> None:
    full = slow.full
    users = [full.user(f"twice-{n}") for n in range(-(-ROUNDS // ROUNDS_A_USER))]
    messages = []
    for number in range(ROUNDS):
        # So few that threads are free for the others while the first are at work.
        pending = send(users[number // ROUNDS_A_USER], AT_ONCE)
        again.bring(pending)
        messages += pending
        wait_for(lambda: not full.ledger().pending, REST_SECONDS, "every message to end")
    wait_for_an_empty_broker(full)
    events = len(check(full).lines)
    # And once more when it has ended long since.
    again.bring(messages)
    wait_for_an_empty_broker(full)
    assert len(check(full).lines) == events
    # The lease saves the work, too: nobody has asked a responder twice.
    assert slow.calls == Counter(messages)


def test_a_worker_that_is_stalled_past_its_heartbeat_comes_back_too_late(
    slow: Slow, figure: Figure
) -> None:
    full = slow.full
    stalled, other = full.stack.processes["worker-1"], full.stack.processes["worker-2"]
    other.stop()
    before = slow.calls
    messages = send(full.user("stalled"), STALLED)
    wait_for(lambda: (slow.calls - before).total() == STALLED, REST_SECONDS, "all to be begun")
    stalled.send(Signals.SIGSTOP)
    began = time.monotonic()
    try:
        # On a busy machine some of them have just ended.
        cut_off = set(messages) & full.ledger().pending
        assert cut_off
        full.stack.start("worker-2")
        wait_for(lambda: not full.ledger().pending, REST_SECONDS, "the other worker's ends")
        ended_seconds = time.monotonic() - began
        wait_for(
            lambda: time.monotonic() > began + 2 * HEARTBEAT_SECONDS,
            REST_SECONDS,
            "the broker to take the messages back",
        )
        events = len(full.ledger().lines)
    finally:
        stalled.send(Signals.SIGCONT)
    wait_for_an_empty_broker(full)
    ledger = check(full)
    figure("seconds to the ends of a stalled worker's messages", [ended_seconds])
    # It has done its work, and come too late with it.
    assert slow.calls - before == Counter([*messages, *cut_off])
    assert len(ledger.lines) == events
    assert {ledger.end_of(each).kind for each in messages} == {"ResponseGenerated"}
    assert ended_seconds > LEASE_SECONDS / 2
