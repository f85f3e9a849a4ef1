"""How long the seals of a log take to make and to verify, and how much memory that needs.

    python -m benchmarks.seals [--events 100000] [--runs 3]

On SQLite and on a PostgreSQL of its own, with events of the sizes that sends have. `verify --seals`
is the command itself, from its start to its exit; the time of `export_head`, which starts the same
way and reads one row, stands beside it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import django

from devstack.application import COMMANDS, PROJECT, clean_environment, make_keys, run_once
from devstack.services import start_postgres

ASKED_SECONDS_PER_100_000 = 2.0
#: The argument that says: fill and seal the database of this process's settings.
HERE = "here"
#: Events that are stored in one transaction.
STORED_EVENTS = 12_000


def main(events: int = 100_000, runs: int = 3) -> int:
    print(f"seals over {events:,} events, {os.cpu_count()} cores, medians of {runs} runs:")
    print(f"  {'':10}  sealing, events/s  verify --seals  events/s  peak memory  start alone")
    with tempfile.TemporaryDirectory(prefix="chatledger-") as folder:
        sqlite = {"DATABASE_URL": f"sqlite:///{folder}/seals.sqlite3"}
        seconds = [measure("SQLite", Path(folder) / "embedded", sqlite, events, runs)]
        postgres = start_postgres(Path(folder) / "postgres")
        try:
            # Nothing here asks Redis, but a profile has either both or none.
            full = {"DATABASE_URL": postgres.url, "REDIS_URL": "redis://127.0.0.1:1/0"}
            seconds.append(measure("PostgreSQL", Path(folder) / "full", full, events, runs))
        finally:
            postgres.stop()
    asked = ASKED_SECONDS_PER_100_000 * max(1.0, events / 100_000)
    return 0 if max(seconds) <= asked else 1


def measure(name: str, folder: Path, settings: Mapping[str, str], events: int, runs: int) -> float:
    """Fill a database, seal it, verify it, and print a line of the table; the seconds of verify."""
    folder.mkdir()
    environment = clean_environment() | make_keys(folder) | dict(settings)
    environment |= {"VAR_DIR": str(folder), "DJANGO_SETTINGS_MODULE": "config.settings"}
    run_once("migrate", COMMANDS["migrate"], environment, folder)
    fill = [sys.executable, "-m", "benchmarks.seals", HERE, "--events", str(events)]
    filled = subprocess.run(
        fill, cwd=PROJECT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    verified = [Run.of(["verify", "--seals"], environment) for _ in range(runs)]
    started = [Run.of(["export_head"], environment) for _ in range(runs)]
    seconds = statistics.median(run.seconds for run in verified)
    print(
        f"  {name:10}  {float(filled.stdout):17,.0f}  {seconds:12.2f} s  {events / seconds:8,.0f}"
        f"  {max(run.peak_mib for run in verified):8.0f} MiB"
        f"  {statistics.median(run.seconds for run in started):9.2f} s",
        flush=True,
    )
    return seconds


@dataclass(frozen=True)
class Run:
    """A command from its start to its exit, and the most memory that it held."""

    seconds: float
    peak_mib: float

    @classmethod
    def of(cls, arguments: list[str], environment: Mapping[str, str]) -> "Run":
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=PROJECT,
            env=dict(environment),
            stdout=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, arguments
        return cls(seconds, used.ru_maxrss / 1024)


def main_here(events: int) -> int:
    """Fill and seal the database of this process's settings; print the events sealed a second."""
    django.setup()
    from django.db import connection

    from eventstore.seals.sealer import SEAL_SECONDS, Sealer
    from tests.eventstore.sealing import Steady, fill

    for first in range(0, events, STORED_EVENTS):
        fill(min(STORED_EVENTS, events - first), seed=first)
    clock = Steady()
    sealer = Sealer(steady_clock=clock)
    began = time.perf_counter()
    while sealer.step():
        pass
    # What is left does not wait for its second here.
    clock.now += SEAL_SECONDS
    sealer.step()
    print(events / (time.perf_counter() - began))
    if connection.vendor == "postgresql":
        # What it does by itself within a minute: the first to read new rows has to note on each
        # page that they are committed, which takes as long as all the rest.
        with connection.cursor() as cursor:
            cursor.execute("VACUUM (ANALYZE)")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("where", nargs="?", choices=[HERE])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    sys.exit(main_here(given.events) if given.where else main(given.events, given.runs))
