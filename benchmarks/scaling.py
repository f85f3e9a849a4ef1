"""One core against two, and a second process of web and worker: what scales out, and what does not.

    python -m benchmarks.scaling [--quick] [embedded] [full]

The processes of a service, its databases and the load generator are held to the same core or cores,
all of them in one running service and in turn; or each process of the application to one of two.
In the full stack a second web process and a second worker come in and go again between the rounds.
Beside each rate stands what a request takes of the processor in each process, since that, and not
the rate on two cores, says what more cores would do.
"""

import argparse
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.contenders import EmbeddedChatledger, FullChatledger
from benchmarks.load import Load, Measured
from benchmarks.processes import family
from benchmarks.streaming_stack import used
from benchmarks.table import Row, reported
from tests.stack.services import FullService

CLIENTS, USERS = 64, 64
ROUNDS, SECONDS = {False: 5, True: 2}, {False: 5, True: 2}
WARM_UP_SECONDS = 2
LOADS = {"send": ("POST", "/send/", '{"message": "hello"}'), "balance": ("GET", "/token/", "")}
ALL_CORES = sorted(os.sched_getaffinity(0))[:2]


@dataclass(frozen=True)
class Setup:
    """How many cores all share, and how many processes of web and worker are there.

    `apart`: of two cores each process of the application keeps to one; the databases and the load
    have both.
    """

    cores: int
    webs: int = 1
    workers: int = 1
    apart: bool = False

    def __str__(self) -> str:
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        each = ", one a process" if self.apart else ""
        return f"{cores}{each}, {self.webs} web, {self.workers} worker"


ONE, TWO = Setup(1), Setup(2)
APART = Setup(2, apart=True)
EMBEDDED = (ONE, TWO, APART)
FULL = (ONE, TWO, APART, Setup(2, webs=2), Setup(2, workers=2), Setup(2, webs=2, workers=2))
#: The core that the first process of a kind keeps to, where each keeps to one.
CORE_APART = {"serve": 0, "web": 0, "worker": 1, "followers": 1}


@dataclass
class Figures:
    """Requests a second and CPU milliseconds a request by process, of each round."""

    rates: list[float] = field(default_factory=list)
    cpu_ms: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


Found = Mapping[tuple[Setup, str], Figures]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME", help="embedded, full")
    options = parser.parse_args()
    if len(ALL_CORES) < 2:
        print("this takes two cores")
        return 1
    faults = []
    for name in options.names or CONTENDERS:
        contender, setups = CONTENDERS[name]()
        with contender:
            show(contender.name, measure(contender, setups, quick=options.quick))
            faults += contender.violations()
    print("\n".join(faults) or "no violations")
    return 1 if faults else 0


def rows(options: argparse.Namespace) -> list[Row]:
    """The experiment as rows: two cores against one, two processes against one."""
    made = []
    for make in CONTENDERS.values():
        contender, setups = make()
        with contender:
            found = measure(contender, setups, quick=options.quick)
            faults = contender.violations()
        for what in LOADS:
            for setup in setups[1:]:
                other = ONE if setup == TWO else TWO
                name = f"{what}, {contender.name}: {setup} against {other}"
                a, b = found[setup, what].rates, found[other, what].rates
                row = reported(name, a, b, unit="/s", note="; ".join(faults[:1]))
                made.append(replace(row, held=not faults))
    return made


CONTENDERS: dict[str, Callable[[], tuple[EmbeddedChatledger | FullChatledger, Sequence[Setup]]]] = {
    "embedded": lambda: (EmbeddedChatledger(), EMBEDDED),
    # Everything runs in it that a setup may ask for.
    "full": lambda: (FullChatledger(webs=2, workers=2), FULL),
}


def measure(
    contender: EmbeddedChatledger | FullChatledger, setups: Sequence[Setup], *, quick: bool
) -> Found:
    """Rounds of each setup and load in turn."""
    jwts = contender.jwts(USERS)
    found: defaultdict[tuple[Setup, str], Figures] = defaultdict(Figures)
    loads = {what: Load(*request, jwts) for what, request in LOADS.items()}
    with set_up(contender, setups[-1]) as urls:
        for load in loads.values():
            run(load, urls, WARM_UP_SECONDS)
    for _ in range(ROUNDS[quick]):
        for setup in setups:
            with set_up(contender, setup) as urls:
                for what, load in loads.items():
                    before = cpu_seconds(contender)
                    measured = run(load, urls, SECONDS[quick])
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
    for name in before.keys() & after.keys():
        figures.cpu_ms[name].append((after[name] - before[name]) * 1000 / requests)


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
        with held_to(setup, contender):
            yield [contender.url]
        return
    stack, away = service.stack, [] if setup.workers > 1 else ["worker-2"]
    for name in away:
        stack.processes[name].stop()
    try:
        with held_to(setup, contender):
            yield stack.urls[: setup.webs]
    finally:
        for name in away:
            stack.start(name)


@contextmanager
def held_to(setup: Setup, contender: EmbeddedChatledger | FullChatledger) -> Iterator[None]:
    """Hold every thread of this process and of all that it has started to the setup's cores."""
    try:
        _hold(os.getpid(), ALL_CORES[: setup.cores])
        if setup.apart:
            for name, pid in contender.pids().items():
                if (core := CORE_APART.get(name.partition("-")[0])) is not None:
                    _hold(pid, [ALL_CORES[core]])
        yield
    finally:
        _hold(os.getpid(), ALL_CORES)


def _hold(pid: int, cores: Sequence[int]) -> None:
    for each in family(pid):
        # Threads come and go; a new one is held as the one that started it.
        with suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{each}/task").iterdir():
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
            parts = ", ".join(f"{each} {ms:.2f}" for each, ms in sorted(cpu.items()))
            print(
                f"  {setup}: {rate:6,.0f}/s ({spread}); CPU {sum(cpu.values()):.2f} ms"
                f" a request: {parts}",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
