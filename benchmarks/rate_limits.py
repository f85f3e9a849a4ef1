"""What it costs to count a send: alone, and of the web process's CPU on a full stack.

python -m benchmarks.rate_limits [SENDS] [ROUNDS]
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.caller import Caller
from devstack.application import UNLIMITED
from devstack.services import start_redis
from tests.stack.services import FullService

COUNTS = 5000
COUNTED = "1000000/minute"


def main(sends: int = 500, rounds: int = 3) -> int:
    print(f"one count, {COUNTS} in a row, {os.cpu_count()} cores:")
    for name, (wall_us, cpu_us) in alone().items():
        print(f"  {name}: {wall_us:.0f} µs, {cpu_us:.0f} µs of this process's CPU")
    print(f"a send on a full stack, the median of {rounds} rounds of {sends}:")
    cpu_ms = on_a_stack(sends, rounds)
    for name, values in cpu_ms.items():
        print(f"  {name}: {statistics.median(values):.2f} ms of the web process's CPU {values}")
    return 0


def alone() -> dict[str, tuple[float, float]]:
    """Microseconds of a count, and of CPU, by where it is counted."""
    from accounts.counters import MemoryCounters, RedisCounters
    from accounts.rates import Rate

    rate = Rate(1_000_000, 60)
    memory, shared = MemoryCounters(), RedisCounters()
    return {
        "in memory": timed(lambda: memory.take("limit:send:somebody", rate)),
        "in Redis, one round trip": timed(lambda: shared.take("limit:send:somebody", rate)),
    }


def timed(count: Callable[[], object]) -> tuple[float, float]:
    count()
    began, cpu_began = time.perf_counter(), time.process_time()
    for _ in range(COUNTS):
        count()
    took, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    return took / COUNTS * 1e6, cpu / COUNTS * 1e6


def on_a_stack(sends: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of the web process's CPU for each send, with a limit and without."""
    found: dict[str, list[float]] = {"without a limit": [], "with a limit": []}
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        FullService(Path(folder), extra_env={"SIGNUP_TOKENS": "100000000"}) as service,
    ):
        caller = Caller(service.url, "counted")
        caller.register()
        for _ in range(rounds):
            for name, limit in zip(found, (UNLIMITED["RATE_LIMIT_SEND"], COUNTED), strict=True):
                service.restart_web(RATE_LIMIT_SEND=limit)
                again = Caller(service.url, "counted", jwt=caller.jwt)
                for _ in range(20):
                    again.send()
                began = cpu_seconds(service.stack.processes["web-1"].pid)
                for _ in range(sends):
                    assert again.send() == 201
                used = cpu_seconds(service.stack.processes["web-1"].pid) - began
                found[name].append(round(used / sends * 1000, 3))
    return found


def cpu_seconds(pid: int) -> float:
    """What a process has used of the CPU so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as own,
        start_redis(Path(own)) as redis_server,
    ):
        os.environ |= {"REDIS_URL": redis_server.url, "DATABASE_URL": "postgresql://nobody/nothing"}
        os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
        status = main(*map(int, sys.argv[1:]))
    sys.exit(status)
