"""Workers die: while they generate, and when the response is in the log but not acknowledged."""

import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from signal import Signals

from tests.faults.checker import check
from tests.faults.counts import count, seeded
from tests.faults.journal import Entry, Journal
from tests.faults.proxied import ProxiedService
from tests.faults.proxy import Trap
from tests.figures import Figure
from tests.stack.services import FullService, wait_for

WORKERS = ("worker-1", "worker-2")
ROUNDS = count(short=1, full=50)
#: So many messages are with the workers when they die.
SENT = 12
#: Two seconds for each response.
SLOW_WORKER = [sys.executable, "-m", "tests.stack.slow_worker", "2"]
SLOW_SENT = 50
CLIENTS = 16
DEATH_SECONDS_MAX = 30.0
RECOVERY_SECONDS_MAX = 30.0


def test_killed_workers_cost_seconds_and_no_message(shared: ProxiedService, figure: Figure) -> None:
    dice, journal = seeded("worker killed"), Journal()
    user = shared.user("worker-killed")
    recovered, unacknowledged = [], 0
    for number in range(ROUNDS):
        # Either its first end is in the log and not acknowledged, or it got no end into the log.
        fates = dice.sample([True, False], len(WORKERS))
        traps = {
            worker: killed_at_its_append(shared, worker, appended=appended)
            for worker, appended in zip(WORKERS, fates, strict=True)
        }
        for sent in range(SENT):
            key = f"{number}-{sent}"
            assert journal.send(user, f"message {key}", key, prefer="respond-async").status == 202
        wait_for(partial(all_have_died, shared, traps), DEATH_SECONDS_MAX, "the workers to die")
        began = time.monotonic()
        for worker in WORKERS:
            shared.stack.processes[worker].wait(DEATH_SECONDS_MAX)
        unacknowledged += SENT - len(shared.ledger().pending)
        wait_for(partial(all_have_ended, shared), 2 * RECOVERY_SECONDS_MAX, "every message to end")
        recovered += [time.monotonic() - began] * len(WORKERS)
    figure("seconds from a worker's death to the end of all that it had", recovered)
    figure("messages a round that were in the log and not acknowledged", [unacknowledged / ROUNDS])
    assert unacknowledged >= ROUNDS
    assert sorted(recovered)[int(len(recovered) * 0.95) - 1] <= RECOVERY_SECONDS_MAX
    check(shared, journal)


def all_have_died(shared: ProxiedService, traps: dict[str, Trap]) -> bool:
    bring_back(shared, [worker for worker in traps if not traps[worker].cuts])
    return all(trap.cuts for trap in traps.values())


def all_have_ended(shared: ProxiedService) -> bool:
    bring_back(shared, WORKERS)
    return not shared.ledger().pending


def bring_back(shared: ProxiedService, workers: Iterable[str]) -> None:
    """Start those that have ended, as a service manager does: also what refused to start."""
    for worker in workers:
        if not shared.stack.processes[worker].running:
            shared.stack.start(worker)


def killed_at_its_append(shared: ProxiedService, worker: str, *, appended: bool) -> Trap:
    process = shared.stack.processes[worker]
    return shared.postgres(worker).call_when(
        "chatledger_append", lambda: process.send(Signals.SIGKILL), forwarded=appended
    )


def test_a_worker_killed_in_the_middle_of_generating_costs_seconds_and_no_message(
    tmp_path: Path, figure: Figure
) -> None:
    journal = Journal()
    with FullService(tmp_path / "stack", commands={"worker": SLOW_WORKER}) as full:
        users = [full.user("killer"), full.user("bystander")]

        def send(number: int) -> Entry:
            user = users[number % len(users)]
            return journal.send(user, "hello", f"slow-{number}", prefer="respond-async")

        with ThreadPoolExecutor(CLIENTS) as clients:
            assert all(entry.accepted for entry in clients.map(send, range(SLOW_SENT)))
        wait_for(lambda: len(full.ledger().pending) < SLOW_SENT, 20, "the worker to be at work")
        full.stack.kill("worker-1")
        killed_at = time.monotonic()
        full.stack.start("worker-1")
        wait_for(lambda: not full.ledger().pending, RECOVERY_SECONDS_MAX, "every message to end")
        figure("seconds from a generating worker's death", [time.monotonic() - killed_at])
        ledger = check(full, journal)
        # None of them was given up for it.
        assert len(ledger.of("ResponseGenerated")) == SLOW_SENT
