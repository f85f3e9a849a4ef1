"""Event streams at once through the full stack: each complete, in order, exactly once, and on time.

    python -m benchmarks.streams [--streams 200] [--per-second 10] [--seconds 10]

PostgreSQL, Redis, one web process, one worker, followers, a scripted model server and a client are
processes of their own on this machine. A delay is the time from the stamp that the model server put
into a delta to the arrival of that delta at the client.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from benchmarks.caller import Caller, milliseconds, percentile
from benchmarks.stream_client import STARTS_SECONDS, Heard, Plan, Readings
from benchmarks.streaming_stack import Used, streaming_stack, used, used_by_machine
from devstack.application import PROJECT
from devstack.stack import Stack
from tests.stack.ledger_check import read_postgres

#: What is asked: up to so many deltas a second with this delay. Beyond it, only completeness.
ASKED_DELTAS_PER_SECOND = 2_000
ASKED_P95_SECONDS = 0.25
USERS_MAX = 20
#: How long the client's process may take on top of its streams, to start and to check.
CLIENT_SECONDS = 60.0
WRONG_SHOWN_MAX = 5


def main(streams: int = 200, per_second: float = 10, seconds: float = 10) -> int:
    load = f"{streams} streams at once, {per_second:g} deltas/s each for {seconds:g} s"
    print(f"full stack, {load}, {os.cpu_count()} cores shared with client and model:", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        streaming_stack(Path(folder), streams=streams) as (stack, _),
    ):
        plan = Plan(
            port=stack.web_ports[0],
            jwts=register_users(stack, min(streams, USERS_MAX)),
            streams=streams,
            deltas=max(1, round(per_second * seconds)),
            every_seconds=1 / per_second,
        )
        before = Snapshot.of(stack)
        readings = read_in_own_process(plan)
        after = Snapshot.of(stack)
        violations = read_postgres(stack.postgres.url).violations()
    complete = report(plan, readings)
    report_used(before, after, readings)
    print(f"  violations of the invariants: {len(violations)} {violations[:WRONG_SHOWN_MAX]}")
    asked = streams * per_second <= ASKED_DELTAS_PER_SECOND
    in_time = not asked or percentile(delays_seconds(readings), 95) <= ASKED_P95_SECONDS
    return 0 if complete and not violations and in_time else 1


def delays_seconds(readings: Readings) -> list[float]:
    """The delays of all deltas of the streams that are complete."""
    return [delay / 1000 for heard in readings.heard for delay in heard.delays_ms] or [math.inf]


def register_users(stack: Stack, count: int) -> list[str]:
    """Register so many users; their JWTs."""
    callers = [Caller(stack.url, f"streams-{number}") for number in range(count)]
    for caller in callers:
        caller.register()
    return [caller.jwt for caller in callers]


def read_in_own_process(plan: Plan) -> Readings:
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.stream_client"],
        input=msgspec.json.encode(plan),
        stdout=subprocess.PIPE,
        cwd=PROJECT,
        check=True,
        timeout=STARTS_SECONDS + plan.seconds_max + CLIENT_SECONDS,
    )
    return msgspec.json.decode(finished.stdout, type=Readings)


def report(plan: Plan, readings: Readings) -> bool:
    """Print what arrived; whether every stream was complete."""
    heard = readings.heard
    whole = [each for each in heard if not each.wrong]
    # Each stamp is another one: two streams with the same text would be one stream heard twice.
    distinct = len({each.text for each in whole}) == len(whole)
    print(f"  {len(whole)} of {plan.streams} complete, {readings.elapsed_seconds:.1f} s in all")
    if whole:
        delays = delays_seconds(readings)
        accepted = milliseconds([each.accepted_ms / 1000 for each in whole])
        firsts = milliseconds([each.first_ms / 1000 for each in whole])
        print(f"  {len(delays)} deltas in {sum(each.events for each in whole)} events")
        print(f"  delay of a delta: {milliseconds(delays)}")
        print(f"  request to answer's head: {accepted}")
        print(f"  request to first delta: {firsts}")
    if restarts := sum(each.restarts for each in heard):
        print(f"  {restarts} restarts")
    if not distinct:
        print("  two streams have the same text")
    report_wrong(heard)
    return distinct and len(whole) == plan.streams


def report_wrong(heard: list[Heard]) -> None:
    wrong = Counter(each.wrong for each in heard if each.wrong)
    for what, count in wrong.most_common(WRONG_SHOWN_MAX):
        print(f"  {count} times: {what}")


@dataclass(frozen=True)
class Snapshot:
    """What each process of the stack, and the whole machine, has used by a moment."""

    at: float
    processes: Mapping[str, Used]
    machine_cpu_seconds: float

    @classmethod
    def of(cls, stack: Stack) -> Self:
        processes = {name: used(each.pid) for name, each in stack.processes.items()}
        return cls(time.monotonic(), processes, used_by_machine())


def report_used(before: Snapshot, after: Snapshot, readings: Readings) -> None:
    """Print the CPU time that each process took for the streams, and the peak of its memory."""
    taken = {
        name: Used(used.cpu_seconds - before.processes[name].cpu_seconds, used.peak_rss_bytes)
        for name, used in after.processes.items()
    }
    taken["client"] = Used(readings.cpu_seconds, readings.peak_rss_bytes)
    for name, each in taken.items():
        rss = f"{each.peak_rss_bytes / 2**20:.0f} MiB"
        print(f"  {name:12} {each.cpu_seconds:6.2f} s CPU, peak RSS {rss}")
    together = sum(each.cpu_seconds for each in taken.values())
    others = after.machine_cpu_seconds - before.machine_cpu_seconds - together
    print(f"  together     {together:6.2f} s CPU in {after.at - before.at:.1f} s")
    print(f"  others       {others:6.2f} s CPU, with the start and the checks of the client")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--per-second", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=10)
    sys.exit(main(**vars(parser.parse_args())))
