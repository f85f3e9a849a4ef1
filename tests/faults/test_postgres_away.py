"""PostgreSQL goes away at once and comes back, or says nothing any more."""

import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from signal import Signals

from tests.faults.checker import check
from tests.faults.counts import count
from tests.faults.journal import Entry, Journal
from tests.faults.log_watcher import LogWatcher
from tests.faults.proxied import KINDS, ProxiedService
from tests.figures import Figure
from tests.stack.client import User

STOPS = count(short=1, full=20)
FREEZES = count(short=1, full=10)
CLIENTS = 4
ANSWER_SECONDS_MAX = 3.0
RETURN_SECONDS_MAX = 10.0
#: Less than what a container engine waits before it kills.
STOP_SECONDS_MAX = 10.0
ENDED = 8
ARRIVED_SECONDS = 0.5
SENDS_MAX = 50_000
#: More than there are threads for reading, so that some have to wait for one.
READS_AT_ONCE = 40


def test_postgres_stopped_at_once_is_a_503_soon_and_service_again_soon_after(
    shared: ProxiedService, figure: Figure
) -> None:
    journal, done = Journal(), threading.Event()
    users = [shared.user(f"away-{number}") for number in range(CLIENTS)]
    reader = users[0]

    def send_on(user: User) -> None:
        for number in range(SENDS_MAX):
            if done.is_set():
                return
            journal.send(user, "hello", f"{user.name}-{number}", prefer="wait=1")
            time.sleep(0.02)

    refused, returned = [], []
    with LogWatcher(shared.stack.postgres.url) as log, ThreadPoolExecutor(CLIENTS) as clients:
        sending = [clients.submit(send_on, user) for user in users]
        try:
            for number in range(STOPS):
                time.sleep(0.3)
                shared.stack.postgres.stop(mode="immediate")
                for _ in range(3):
                    refused.append(seconds_to_refusal(reader, "/token/"))
                    refused.append(seconds_to_refused_send(reader))
                shared.stack.postgres.start()
                began = time.monotonic()
                entry = journal.send_again(reader, "back", f"back-{number}", prefer="wait=30")
                assert entry.status == 201
                returned.append(time.monotonic() - began)
        finally:
            done.set()
        for each in sending:
            each.result(60)
        log.check()
    figure("seconds to a 503 while PostgreSQL is away", refused)
    figure("seconds from PostgreSQL's return to a response", returned)
    assert max(refused) < ANSWER_SECONDS_MAX
    assert max(returned) < RETURN_SECONDS_MAX
    check(shared, journal)


def test_a_frozen_postgres_is_a_503_soon_and_service_again_when_it_thaws(
    shared: ProxiedService, figure: Figure
) -> None:
    user, journal = shared.user("frozen"), Journal()
    refused, returned = [], []
    for number in range(FREEZES):
        assert journal.send(user, "before", f"before-{number}", prefer="wait=30").status == 201
        with ThreadPoolExecutor(READS_AT_ONCE + 1) as clients, frozen(shared):
            reads = [
                clients.submit(seconds_to_refusal, user, "/token/") for _ in range(READS_AT_ONCE)
            ]
            send = clients.submit(timed_send, journal, user, f"frozen-{number}")
            entry, seconds = send.result(60)
            refused += [seconds, *(read.result(60) for read in reads)]
            assert entry.status == 503
            refused.append(seconds_to_refusal(user, "/conversations/"))
        began = time.monotonic()
        assert journal.send_again(user, "back", f"back-{number}", prefer="wait=30").status == 201
        returned.append(time.monotonic() - began)
    figure("seconds to a 503 while PostgreSQL is frozen", refused)
    figure("seconds from PostgreSQL's thaw to a response", returned)
    assert max(refused) < ANSWER_SECONDS_MAX
    assert max(returned) < RETURN_SECONDS_MAX
    check(shared, journal)


def test_processes_that_are_told_to_stop_do_so_while_postgres_is_frozen(
    shared: ProxiedService, figure: Figure
) -> None:
    user, journal = shared.user("told-to-stop"), Journal()
    ended = [journal.send(user, "hello", f"stop-{n}", prefer="wait=30") for n in range(ENDED)]
    assert [entry.status for entry in ended] == [201] * ENDED
    names = [name for name in shared.stack.processes if name.split("-")[0] in KINDS]
    stopped: dict[str, float] = {}
    with ThreadPoolExecutor(4 * len(names)) as threads, frozen(shared):
        # What has ended comes once more: a worker asks the log about it, which says nothing.
        enqueue_again(shared, [entry.message_id for entry in ended])
        users = [replace(user, url=url) for url in shared.stack.urls]
        first = [threads.submit(seconds_to_refusal, each, "/token/") for each in users]
        assert max(each.result(60) for each in first) < ANSWER_SECONDS_MAX
        last = [threads.submit(each.get, "/token/") for each in users]
        # They are there by then, and not answered yet: who comes later is told nothing.
        time.sleep(ARRIVED_SECONDS)
        stopping = {name: threads.submit(seconds_to_stop, shared, name) for name in names}
        stopped = {name: each.result(60) for name, each in stopping.items()}
        assert [answer.result(60).status_code for answer in last] == [503] * len(last)
    for name in names:
        shared.bring_back(name)
    figure("seconds to a stop while PostgreSQL is frozen", list(stopped.values()))
    assert max(stopped.values()) < STOP_SECONDS_MAX, stopped
    assert journal.send_again(user, "back", "back-after-stop", prefer="wait=30").status == 201
    check(shared, journal)


def seconds_to_stop(shared: ProxiedService, name: str) -> float:
    process = shared.stack.processes[name]
    began = time.monotonic()
    process.send(Signals.SIGTERM)
    assert process.wait(5 * STOP_SECONDS_MAX), f"{name} does not stop"
    seconds = time.monotonic() - began
    assert process.exit_code == 0, f"{name}: {process.how_it_ended}"
    assert "Traceback" not in process.log_tail(), process.log_tail()
    return seconds


def enqueue_again(shared: ProxiedService, message_ids: list[str]) -> None:
    told = "\n".join(message_ids)
    said = shared.run("-m", "tests.faults.enqueue_again", "1", told=told)
    assert said.stdout.split() == ["ready", *["1"] * len(message_ids)], said.stderr


@contextmanager
def frozen(shared: ProxiedService) -> Iterator[None]:
    """Stop every process of PostgreSQL: its sockets take what comes, and nobody reads it."""
    parent = shared.stack.postgres.pid
    # First the one that would start others.
    send_to_all([parent], Signals.SIGSTOP)
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=True
    )
    pids = [parent, *map(int, listed.stdout.split())]
    send_to_all(pids, Signals.SIGSTOP)
    try:
        yield
    finally:
        send_to_all(pids, Signals.SIGCONT)


def send_to_all(pids: list[int], number: Signals) -> None:
    for pid in pids:
        subprocess.run(["kill", f"-{number.value}", str(pid)], check=False)


def seconds_to_refusal(user: User, path: str) -> float:
    began = time.monotonic()
    answer = user.get(path)
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return time.monotonic() - began


def seconds_to_refused_send(user: User) -> float:
    began = time.monotonic()
    answer = user.send("nobody home")
    assert answer.status_code == 503, answer.text
    return time.monotonic() - began


def timed_send(journal: Journal, user: User, key: str) -> tuple[Entry, float]:
    began = time.monotonic()
    entry = journal.send(user, "hello", key)
    return entry, time.monotonic() - began
