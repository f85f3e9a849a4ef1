"""A web process dies at any moment within sends: what was answered is kept, the rest is whole."""

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from signal import Signals

from tests.faults.checker import check
from tests.faults.counts import count, seeded
from tests.faults.journal import Journal
from tests.faults.log_watcher import LogWatcher
from tests.faults.proxied import ProxiedService
from tests.figures import Figure
from tests.stack.client import User

KILLS = count(short=4, full=200)
CLIENTS = 4
#: The longest that a web process is left alone.
ALIVE_SECONDS_MAX = 0.5
SENDS_MAX = 50_000
PAUSE_SECONDS = 0.1


def test_a_web_process_killed_within_sends_loses_nothing_that_it_answered(
    shared: ProxiedService, figure: Figure
) -> None:
    dice, journal, done = seeded("web killed"), Journal(), threading.Event()
    users = [shared.user(f"web-killed-{number}") for number in range(CLIENTS)]

    def send_on(user: User, prefer: str) -> None:
        for number in range(SENDS_MAX):
            if done.is_set():
                return
            # Every other is left as it is when no answer came; the others are asked for again.
            send = journal.send if number % 2 else journal.send_again
            send(user, f"message {number}", f"{user.name}-{number}", prefer=prefer)
            done.wait(PAUSE_SECONDS)

    recovered = []
    with LogWatcher(shared.stack.postgres.url) as log, ThreadPoolExecutor(CLIENTS) as clients:
        sending = [
            clients.submit(send_on, user, prefer)
            for user, prefer in zip(users, ["respond-async", "wait=10"] * 2, strict=True)
        ]
        try:
            for _ in range(KILLS):
                time.sleep(dice.uniform(0, ALIVE_SECONDS_MAX))
                shared.stack.kill("web-1")
                began = time.monotonic()
                shared.bring_back("web-1")
                recovered.append(time.monotonic() - began)
        finally:
            done.set()
        for each in sending:
            each.result(60)
        log.check()
    figure("seconds until a killed web process serves again", recovered)
    figure("sends a kill", [len(journal.entries) / KILLS])
    assert any(entry.status is None for entry in journal.entries)
    repeat_what_was_not_answered(journal)
    ledger = check(shared, journal)
    # Now each of them has been accepted, and paid for once.
    assert {entry.message_id for entry in journal.entries} == {
        message for user in users for message in ledger.messages_of(user.id)
    }


def repeat_what_was_not_answered(journal: Journal) -> None:
    answered = {entry.message_id for entry in journal.entries if entry.accepted}
    for entry in list(journal.entries):
        if entry.message_id not in answered:
            again = journal.send_again(entry.user, entry.text, entry.key, prefer="wait=30")
            assert again.accepted
            assert journal.send(entry.user, "another text", entry.key).status == 422
            journal.entries.pop()


def test_a_web_process_stopped_with_the_append_lock_holds_nobody_up_for_long(
    shared: ProxiedService, figure: Figure
) -> None:
    others = [dataclasses.replace(shared.user("lock-1"), url=shared.stack.urls[1])]
    journal = Journal()
    stopped = shared.stack.processes["web-1"]
    waited = []
    for number in range(count(short=1, full=20)):
        # A password's change takes the lock first, and then has more to do.
        victim = shared.user(f"lock-victim-{number}")
        shared.users.remove(victim)
        trap = shared.postgres("web-1").call_when(
            "pg_advisory_xact_lock", lambda: stopped.send(Signals.SIGSTOP)
        )
        with ThreadPoolExecutor(1) as thread:
            held = thread.submit(victim.post, "/users/logout/")
            try:
                assert trap.wait(1, 10)
                began = time.monotonic()
                entry = journal.send_again(others[0], "hello", f"lock-{number}", prefer="wait=10")
                waited.append(time.monotonic() - began)
                assert entry.accepted
            finally:
                stopped.send(Signals.SIGCONT)
            # The server has ended its transaction; it is tried anew, or refused.
            assert held.result(60).status_code in (204, 503)
    figure("seconds that others wait for a stopped holder of the append lock", waited)
    # It was really held.
    assert min(waited) > 1
    assert max(waited) < 5
    check(shared, journal)
