"""`make simulation`: very many operations, on as many processes as there are cores.

    python -m tests.simulation [OPERATIONS [WORLDS]]

Each process runs rounds of so many worlds, each round with a seed of its own, until all together
have done so many operations. A round that fails prints its seed and the command that runs it
again, and ends all.
"""

import multiprocessing
import os
import queue
import resource
import sys
import time
from collections import Counter
from typing import Any

from tests.simulation.workers import prepare, work

OPERATIONS = 1_000_000
OPERATIONS_VARIABLE = "CHATLEDGER_SIMULATION"
#: How often it says how far it is.
REPORT_SECONDS = 30.0
#: How often it looks whether the processes are there.
ALIVE_SECONDS = 5.0

#: What a process says of a round: its seed, what was done, and the error if it failed.
Said = tuple[int, dict[str, int], str]


def main() -> int:
    wanted = int((sys.argv[1:] or [os.environ.get(OPERATIONS_VARIABLE, str(OPERATIONS))])[0])
    prepare()
    from tests.simulation import operations, rounds

    worlds = int(sys.argv[2]) if len(sys.argv) > 2 else rounds.WORLDS
    began, first = time.monotonic(), rounds.first_seed()
    count = 1 if wanted == 1 else len(os.sched_getaffinity(0))
    spawning = multiprocessing.get_context("spawn")
    said: Any = spawning.Queue()
    stop = spawning.Event()
    processes = [
        spawning.Process(target=work, args=(first + number, count, worlds, stop, said), daemon=True)
        for number in range(count)
    ]
    for process in processes:
        process.start()
    done: Counter[str] = Counter()
    total, seeds, failed, reported = 0, 0, "", began
    while total < wanted and not failed:
        try:
            seed, of_round, failed = said.get(timeout=ALIVE_SECONDS)
        except queue.Empty:
            if not all(process.is_alive() for process in processes):
                failed = "a process has died"
            continue
        if failed:
            sys.stdout.write(f"\nseed {seed}\n{failed}")
            break
        done.update(of_round)
        seeds += 1
        total = sum(done[name] for name in operations.OPERATIONS)
        if time.monotonic() - reported >= REPORT_SECONDS:
            reported = time.monotonic()
            sys.stdout.write(f"{total:,} operations after {reported - began:.0f} s\n")
            sys.stdout.flush()
    stop.set()
    for process in processes:
        process.terminate()
        process.join()
    _report(done, operations.OPERATIONS, total, time.monotonic() - began)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    sys.stdout.write(f"{used.ru_utime + used.ru_stime:.0f} s of processor time\n")
    sys.stdout.write(f"{seeds} rounds, seeds from {first}, on {count} processes\n")
    return 1 if failed else 0


def _report(done: Counter[str], operations: Any, total: int, seconds: float) -> None:
    for name, number in sorted(done.items(), key=lambda each: (each[0] not in operations, each)):
        sys.stdout.write(f"{number:12,}  {name}\n")
    sys.stdout.write(f"{total:,} operations in {seconds:.0f} s, {total / seconds:,.0f} a second\n")


if __name__ == "__main__":
    sys.exit(main())
