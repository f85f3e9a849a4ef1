"""What the processes need: memory at rest and under load, and time until they serve.

    python -m benchmarks.processes [--quick]

Memory is that of a process with all that it has started: PSS, where a page that several share is
divided among them, so that sums are right; RSS, where it counts in each, stands in the note. Under
load it is the most of the samples while 64 clients send. A start is `manage.py serve` on a migrated
database, from the process's beginning to the first 200 of `/readyz/`, looked for every 20 ms.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.contenders import MIB, EmbeddedChatledger, FullChatledger
from benchmarks.load import Load
from benchmarks.speed import USERS
from benchmarks.table import Row, head, line, reported
from devstack.application import COMMANDS, Embedded
from tests.stack.services import FullService

CLIENTS = 64
LOAD_SECONDS = {False: 15, True: 2}
STARTS = {False: 5, True: 1}
#: What has just started has not come to rest.
REST_SECONDS = 2.0
SAMPLE_SECONDS = 0.5
ASKED_START_SECONDS = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    print(head())
    held = True
    for row in rows(options):
        print(f"{line(row)}  {row.note}".rstrip(), flush=True)
        held &= row.held
    return 0 if held else 1


def rows(options: argparse.Namespace) -> list[Row]:
    """Memory and starts, of both profiles."""
    starts = STARTS[options.quick]
    with EmbeddedChatledger() as embedded:
        found = memory(embedded, quick=options.quick)
    found.append(embedded_starts(starts))
    with FullChatledger() as full:
        found += memory(full, quick=options.quick)
        found.append(full_starts(full, starts))
    return found


@dataclass(frozen=True)
class Memory:
    """What a process and all below it hold, in MiB."""

    pss: float
    rss: float

    @classmethod
    def of(cls, pid: int) -> "Memory":
        held = {"Pss:": 0, "Rss:": 0}
        for each in family(pid):
            # One that has ended since holds nothing.
            with suppress(FileNotFoundError, ProcessLookupError):
                for text in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()[1:]:
                    name, kib, *_ = text.split()
                    if name in held:
                        held[name] += int(kib) * 1024
        return cls(held["Pss:"] / MIB, held["Rss:"] / MIB)


def family(pid: int) -> Iterator[int]:
    """A process and all below it; those that end meanwhile are left out."""
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                for child in (task / "children").read_text().split():
                    yield from family(int(child))


def memory(contender: EmbeddedChatledger | FullChatledger, *, quick: bool) -> list[Row]:
    """A row for each process: under load against at rest."""
    time.sleep(REST_SECONDS)
    at_rest = memory_now(contender.pids())
    load = Load("POST", "/send/", '{"message": "hello"}', contender.jwts(USERS[quick]))
    samples = []
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(load.run, contender.url, CLIENTS, LOAD_SECONDS[quick])
        while not running.done():
            samples.append(memory_now(contender.pids()))
            time.sleep(SAMPLE_SECONDS)
        measured = running.result()
    faults = contender.violations() + [f"{n} {kind}" for kind, n in measured.failures.items()]
    found = []
    for name, before in at_rest.items():
        most = max((each[name] for each in samples), key=lambda held: held.pss)
        row = reported(
            f"memory of {contender.name}, {name}: load, rest",
            [most.pss],
            [before.pss],
            unit="MiB",
            note=f"PSS; RSS {most.rss:.0f} and {before.rss:.0f} MiB",
        )
        found.append(replace(row, held=not faults, note="; ".join([row.note, *faults[:1]])))
    return found


def memory_now(pids: dict[str, int]) -> dict[str, Memory]:
    """What each process holds, and all of them together."""
    held = {name: Memory.of(pid) for name, pid in pids.items()}
    if len(held) > 1:
        every = held.values()
        held["all"] = Memory(sum(each.pss for each in every), sum(each.rss for each in every))
    return held


def embedded_starts(count: int) -> Row:
    """How long `manage.py serve` takes to its first 200 in the embedded profile."""
    with tempfile.TemporaryDirectory(prefix="chatledger-") as folder:
        service = Embedded(Path(folder))
        with service:
            pass
        service.child.command = COMMANDS["web"]
        return started("embedded", [seconds_to(service.start, service.stop) for _ in range(count)])


def full_starts(contender: FullChatledger, count: int) -> Row:
    """The same for a web process of the full stack."""
    service = contender.service
    assert isinstance(service, FullService)
    stack = service.stack
    stop = stack.processes["web-1"].stop
    stop()
    taken = [seconds_to(lambda: stack.start("web-1"), stop) for _ in range(count)]
    stack.start("web-1")
    return started("full", taken)


def seconds_to(start: Callable[[], None], stop: Callable[[], None]) -> float:
    began = time.perf_counter()
    start()
    took = time.perf_counter() - began
    stop()
    return took


def started(profile: str, seconds: list[float]) -> Row:
    held = statistics.median(seconds) <= ASKED_START_SECONDS
    name = f"start of manage.py serve to the first 200, {profile}"
    return Row(name, seconds, (), None, f"≤ {ASKED_START_SECONDS:g} s", "s", held)


if __name__ == "__main__":
    sys.exit(main())
