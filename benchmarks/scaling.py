"""One core against two, and a second process of web and worker: what scales out, and what does not.

    python -m benchmarks.scaling [--quick]

The processes of a service, its databases and the load generator are held to the same core or cores,
all of them in one running service and in turn. In the full stack a second web process and a second
worker come in and go again between the rounds. Beside each rate stands what a request takes of the
processor in each process, since that, and not the rate on two cores, says what more cores would do.
"""

import argparse
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.contenders import EmbeddedChatledger, FullChatledger, descendants
from benchmarks.load import Load, Measured
from benchmarks.streaming_stack import used
from benchmarks.table import Row, reported
from tests.stack.services import FullService

CLIENTS, USERS = 64, 64
ROUNDS, SECONDS = {False: 5, True: 2}, {False: 5, True: 3}
LOADS = {"send": ("POST", "/send/", '{"message": "hello"}'), "balance": ("GET", "/token/", "")}
ALL_CORES = sorted(os.sched_getaffinity(0))[:2]


@dataclass(frozen=True)
class Setup:
    """How many cores all share, and how many processes of web and worker are there."""

    cores: int
    webs: int = 1
    workers: int = 1

    def __str__(self) -> str:
        cores = "1 core " if self.cores == 1 else f"{self.cores} cores"
        return f"{cores}, {self.webs} web, {self.workers} worker"


ONE, TWO = Setup(1), Setup(2)
EMBEDDED = (ONE, TWO)
FULL = (ONE, TWO, Setup(2, webs=2), Setup(2, workers=2), Setup(2, webs=2, workers=2))


@dataclass
class Figures:
    """Requests a second and CPU milliseconds a request by process, of each round."""

    rates: list[float] = field(default_factory=list)
    cpu_ms: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


Found = Mapping[tuple[Setup, str], Figures]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if len(ALL_CORES) < 2:
        print("this takes two cores")
        return 1
    faults = []
    for contender, setups in ((EmbeddedChatledger(), EMBEDDED), (FullChatledger(**BOTH), FULL)):
        with contender:
            found = measure(contender, setups, quick=options.quick)
            show(contender.name, found)
            faults += contender.violations()
    print("\n".join(faults) or "no violations")
    return 1 if faults else 0


#: Options of the stack in which everything runs that a setup may ask for.
BOTH = {"webs": 2, "workers": 2}


def rows(*, quick: bool = False) -> list[Row]:
    """The experiment as rows: two cores against one, two processes against one."""
    made = []
    for contender, setups in ((EmbeddedChatledger(), EMBEDDED), (FullChatledger(**BOTH), FULL)):
        with contender:
            found = measure(contender, setups, quick=quick)
        for what in LOADS:
            for setup in setups[1:]:
                other = ONE if setup == TWO else TWO
                name = f"{what}, {contender.name}: {setup} against {other}"
                a, b = found[setup, what].rates, found[other, what].rates
                made.append(reported(name, a, b, unit="/s"))
    return made


def measure(
    contender: EmbeddedChatledger | FullChatledger, setups: Sequence[Setup], *, quick: bool
) -> Found:
    """Rounds of each setup and load in turn."""
    jwts = contender.jwts(USERS)
    found: defaultdict[tuple[Setup, str], Figures] = defaultdict(Figures)
    for number in range(ROUNDS[quick] + 1):
        for setup in setups:
            with set_up(contender, setup) as urls:
                for what, (method, path, body) in LOADS.items():
                    load = Load(method, path, body, jwts)
                    before = cpu_seconds(contender)
                    measured = run(load, urls, SECONDS[quick])
                    if number == 0:
                        continue  # it warms up
                    note(found[setup, what], measured, cpu_seconds(contender), before)
    return found


def note(
    figures: Figures,
    measured: Sequence[Measured],
    after: Mapping[str, float],
    before: Mapping[str, float],
) -> None:
    for each in measured:
        assert not each.failures, each.failures
    requests = sum(each.requests for each in measured)
    figures.rates.append(sum(each.rate for each in measured))
    for name, seconds in after.items():
        figures.cpu_ms[name].append((seconds - before.get(name, 0.0)) * 1000 / requests)


def run(load: Load, urls: Sequence[str], seconds: float) -> list[Measured]:
    """All the clients, divided among the addresses."""
    clients = CLIENTS // len(urls)
    with ThreadPoolExecutor(len(urls)) as threads:
        return list(threads.map(lambda url: load.run(url, clients, seconds), urls))


@contextmanager
def set_up(contender: EmbeddedChatledger | FullChatledger, setup: Setup) -> Iterator[Sequence[str]]:
    """Let the service be as the setup says; the addresses that take requests."""
    service = contender.service
    if not isinstance(service, FullService):
        with held_to(setup.cores):
            yield [contender.url]
        return
    stack, away = service.stack, [] if setup.workers > 1 else ["worker-2"]
    for name in away:
        stack.processes[name].stop()
    try:
        with held_to(setup.cores):
            yield stack.urls[: setup.webs]
    finally:
        for name in away:
            stack.start(name)


@contextmanager
def held_to(cores: int) -> Iterator[None]:
    """Hold every thread of this process and of all that it has started to so many cores."""
    try:
        _hold(ALL_CORES[:cores])
        yield
    finally:
        _hold(ALL_CORES)


def _hold(cores: Sequence[int]) -> None:
    for pid in (os.getpid(), *descendants(os.getpid())):
        # Threads come and go; a new one is held as the one that started it.
        with suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(int(task.name), cores)


def cpu_seconds(contender: EmbeddedChatledger | FullChatledger) -> dict[str, float]:
    """What each kind of process has used of the processor since it began, and the load with it."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for name, pid in contender.pids().items():
        with suppress(FileNotFoundError, ProcessLookupError):
            seconds[name.partition("-")[0]] += used(pid).cpu_seconds
    # What it has started and waited for is wrk.
    times = os.times()
    return dict(seconds) | {"load": times.children_user + times.children_system}


def show(name: str, found: Found) -> None:
    """Print a table for each load."""
    for what in LOADS:
        print(f"\n{name}, {what}, {CLIENTS} clients")
        for setup in [setup for setup, each in found if each == what]:
            figures = found[setup, what]
            rate = statistics.median(figures.rates)
            spread = f"{min(figures.rates):,.0f}..{max(figures.rates):,.0f}"
            cpu = {each: statistics.median(ms) for each, ms in figures.cpu_ms.items()}
            parts = ", ".join(f"{each} {ms:.2f}" for each, ms in cpu.items())
            print(
                f"  {setup}: {rate:6,.0f}/s ({spread}); CPU {sum(cpu.values()):.2f} ms"
                f" a request: {parts}",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
