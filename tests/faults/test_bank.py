"""The bank test: many customers, every kind of fault, and not one figure that is wrong at the end.

`make bank` runs it for ten minutes; the suite runs a short one.
"""

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devstack.model_server import ModelServer
from tests.faults.checker import check
from tests.faults.counts import count, seeded
from tests.faults.customers import Customer, upstream
from tests.faults.proxied import ProxiedService
from tests.faults.saboteur import Killer, Saboteur, Wrecker
from tests.figures import Figure
from tests.stack.ledger_check import ENDS, Ledger

SECONDS = count(short=10, full=600)
ACCOUNTS = count(short=16, full=200)
SENDS_MIN = count(short=20, full=8_000)
FAULTS_MIN = count(short=2, full=120)
CUSTOMERS = count(short=8, full=20)
#: Between two faults of one saboteur, on average.
PAUSE_SECONDS = 2.0
GRANT = 8_000
DEADLINE_SECONDS = 20
#: A fault may keep the sweeper from its work, or whoever should do it.
SWEEP_SECONDS_MAX = 25.0
MICROSECONDS = 1_000_000
ENV = {
    "RESPONDER": "openai",
    "OPENAI_MODEL": "scripted",
    "OPENAI_SILENCE_SECONDS": "3",
    "SIGNUP_TOKENS": str(GRANT),
    "RESPONSE_DEADLINE_SECONDS": str(DEADLINE_SECONDS),
    "RATE_LIMIT_REGISTER": "off",
    "RATE_LIMIT_SEND": "off",
}


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer(default=upstream) as server:
        yield server


@pytest.fixture
def bank(model: ModelServer) -> Iterator[ProxiedService]:
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        ProxiedService(
            Path(folder),
            webs=2,
            workers=2,
            followers=2,
            extra_env={**ENV, "OPENAI_BASE_URL": model.url},
        ) as running,
    ):
        yield running


def test_no_mix_of_faults_costs_a_message_or_a_token(
    bank: ProxiedService, model: ModelServer, figure: Figure
) -> None:
    with ThreadPoolExecutor(2) as opening:
        accounts = list(opening.map(bank.user, (f"account-{n}" for n in range(ACCOUNTS))))
    customers = [
        Customer(
            f"c{number}",
            accounts[number::CUSTOMERS],
            bank.stack.urls,
            seeded(f"customer {number}"),
            GRANT,
        )
        for number in range(CUSTOMERS)
    ]
    saboteurs = [
        Killer(bank, seeded("killer")),
        Wrecker(bank, seeded("wrecker"), model),
    ]
    run(customers, saboteurs)
    ledger = check(bank, *(customer.journal for customer in customers))
    seconds = seconds_to_end(ledger)
    figure("messages", [len(ledger.messages)])
    figure("seconds to a message's end", seconds)
    for kind in ENDS:
        figure(f"messages that ended as {kind}", [len(ledger.of(kind))])
    for name, times in sorted(sum((each.done for each in customers), Counter[str]()).items()):
        figure(f"acts: {name}", [times])
    faults = sum((each.done for each in saboteurs), Counter[str]())
    for name, times in sorted(faults.items()):
        figure(f"faults: {name}", [times])
    figure("faults in all", [faults.total()])
    wrong = [each for customer in customers for each in customer.wrong]
    assert not wrong, "\n".join(wrong)
    verified = bank.run("manage.py", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert max(seconds) < DEADLINE_SECONDS + SWEEP_SECONDS_MAX
    assert len(ledger.messages) >= SENDS_MIN
    assert faults.total() >= FAULTS_MIN


def run(customers: list[Customer], saboteurs: list[Saboteur]) -> None:
    """Let them all go on for as long as the test takes; whatever is broken is mended then."""
    enough = threading.Event()
    end = time.monotonic() + SECONDS

    def serve(customer: Customer) -> None:
        while time.monotonic() < end:
            customer.act()

    def sabotage(saboteur: Saboteur) -> None:
        saboteur.work(enough, PAUSE_SECONDS)

    with ThreadPoolExecutor(len(customers) + len(saboteurs)) as threads:
        working = [threads.submit(sabotage, each) for each in saboteurs]
        serving = [threads.submit(serve, each) for each in customers]
        try:
            enough.wait(SECONDS)
        finally:
            enough.set()
        for each in (*working, *serving):
            each.result()


def seconds_to_end(ledger: Ledger) -> list[float]:
    """How long each message took from its debit to its end, by the log's own time."""
    sent = {line.stream: line.at for line in ledger.of("MessageSent")}
    return [(line.at - sent[line.stream]) / MICROSECONDS for line in ledger.of(*ENDS)]
