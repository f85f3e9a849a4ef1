"""Replays of a log of realistic mix: events a second, against a bare insert, and beside sends.

    python -m benchmarks.replay [--events N] [--profile embedded|full] [--sends SECONDS]

For each profile on a database of its own: the log is stored in bulk; the read models are replayed
in a process of their own, twice (without rows to begin with, and beside the rows of the first);
the same rows are inserted bare, into tables with the same indexes. With `--sends` 20 sends a second
go on for so long without a replay, and then for as long as `manage.py replay` takes.
"""

import argparse
import http
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import django

from benchmarks.caller import Caller, milliseconds, percentile
from benchmarks.fills import database
from devstack.application import (
    COMMANDS,
    PROJECT,
    UNLIMITED,
    Embedded,
    clean_environment,
    make_keys,
    run_once,
)
from devstack.stack import Stack

ASKED_EVENTS_A_SECOND = 25_000
ASKED_RATIO = 0.25
ASKED_P95_RATIO = 3.0
SENDS_A_SECOND = 20
CALLERS = 10
#: Rows that share a statement and a transaction of the bare insert.
INSERTED_ROWS = 5_000


def main() -> int:
    options = parsed()
    if options.here:
        return {"fill": fill_here, "replay": replay_here, "bare": bare_here}[options.here](options)
    profiles = ["embedded", "full"] if options.profile is None else [options.profile]
    held = [measure(profile, options) for profile in profiles]
    return 0 if all(held) else 1


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--profile", choices=["embedded", "full"])
    parser.add_argument("--sends", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--names", nargs="*", help="read models, instead of all")
    parser.add_argument("--profiler", action="store_true", help="where the time of a replay goes")
    parser.add_argument("--here", choices=["fill", "replay", "bare"], help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(profile: str, options: argparse.Namespace) -> bool:
    """Measure in one profile and print the figures; whether they are what was asked for."""
    print(f"{profile}, {options.events:,} events, {os.cpu_count()} cores:", flush=True)
    with tempfile.TemporaryDirectory(prefix="chatledger-") as name:
        with database(profile, Path(name)) as env:
            held = measure_alone(Path(name), env, options)
        if options.sends:
            held &= beside_sends(profile, Path(name), options)
    return held


def measure_alone(folder: Path, env: Mapping[str, str], options: argparse.Namespace) -> bool:
    """Store the log, replay it twice, and insert the rows bare."""
    run_once("migrate", COMMANDS["migrate"], env, folder)
    filled = here("fill", env, options)
    print(f"  stored in {filled['seconds']:.1f} s", flush=True)
    held = True
    for beside in ("no rows", "the rows of the first"):
        replay = here("replay", env, options)
        rate = options.events / replay["swapped"]
        held &= rate >= ASKED_EVENTS_A_SECOND
        print(
            f"  replay beside {beside}: {rate:,.0f} events/s ({replay['swapped']:.1f} s,"
            f" {replay['seconds']:.1f} s with the removal of old rows,"
            f" {replay['cpu']:.1f} s of CPU), peak {replay['peak_mib']:.0f} MiB",
            flush=True,
        )
    bare = here("bare", env, options)
    ratio: float = bare["seconds"] / replay["swapped"]
    held &= ratio >= ASKED_RATIO
    print(
        f"  bare insert of the same {bare['rows']:,} rows: {bare['seconds']:.1f} s,"
        f" ratio {ratio:.2f}",
        flush=True,
    )
    return held


def here(what: str, env: Mapping[str, str], options: argparse.Namespace) -> dict[str, Any]:
    """Do it in a process that has these settings; the figures that it prints last."""
    command = [sys.executable, "-m", "benchmarks.replay", "--here", what]
    command += ["--events", str(options.events)]
    if options.names:
        command += ["--names", *options.names]
    if options.profiler:
        command += ["--profiler"]
    done = subprocess.run(command, cwd=PROJECT, env=env, check=True, stdout=subprocess.PIPE)
    *other, last = done.stdout.decode().splitlines()
    for line in other:
        print(f"  {line}")
    figures: dict[str, Any] = json.loads(last)
    return figures


def fill_here(options: argparse.Namespace) -> int:
    django.setup()
    from benchmarks.realistic_log import fill

    began = time.perf_counter()
    fill(options.events)
    print(json.dumps({"seconds": time.perf_counter() - began}))
    return 0


def replay_here(options: argparse.Namespace) -> int:
    django.setup()
    from projections.rebuild import rebuild
    from projections.registry import PROJECTIONS

    names = options.names or list(PROJECTIONS)
    applied_at = [0.0]

    def note(done: int, total: int) -> None:
        applied_at[0] = time.perf_counter()

    began = time.perf_counter()
    with profiled(options.profiler):
        rebuild({name: PROJECTIONS[name] for name in names}, note)
    figures = {
        "swapped": applied_at[0] - began,
        "seconds": time.perf_counter() - began,
        "cpu": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(figures))
    return 0


@contextmanager
def profiled(wanted: bool) -> Iterator[None]:  # noqa: FBT001 (the one argument)
    if not wanted:
        yield
        return
    import cProfile
    import pstats

    profiler = cProfile.Profile()
    profiler.enable()
    yield
    profiler.disable()
    pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(28)


def bare_here(options: argparse.Namespace) -> int:
    """Insert the live rows of all read models, in the order of their making, and nothing else."""
    django.setup()
    from django.db import connection

    from projections import positions
    from projections.registry import PROJECTIONS

    rows, seconds = 0, 0.0
    live = positions.live()
    for name in options.names or list(PROJECTIONS):
        table = PROJECTIONS[name].table
        bare = f"bare_{table.name}"
        make_like(bare, table.name)
        columns = ["generation", *table.types]
        order = "rowid" if connection.vendor == "sqlite" else "ctid"
        last: Any = 0 if order == "rowid" else "(0,0)"
        while True:
            with connection.cursor() as cursor:
                cursor.execute(
                    f"SELECT {order}, {', '.join(columns)} FROM {table.name}"
                    f" WHERE {order} > %s AND generation + 0 = %s ORDER BY {order} LIMIT %s",
                    [last, live[name].generation, INSERTED_ROWS],
                )
                batch = cursor.fetchall()
            if not batch:
                break
            last, values = batch[-1][0], [row[1:] for row in batch]
            began = time.perf_counter()
            insert_bare(bare, columns, values)
            seconds += time.perf_counter() - began
            rows += len(values)
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE {bare}")
    print(json.dumps({"rows": rows, "seconds": seconds}))
    return 0


def make_like(bare: str, table: str) -> None:
    """A table of the same columns, constraints and indexes."""
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"CREATE TABLE {bare} (LIKE {table} INCLUDING ALL)")
            return
        cursor.execute(
            "SELECT sql FROM sqlite_master WHERE tbl_name = %s AND sql IS NOT NULL"
            " ORDER BY type DESC",
            [table],
        )
        for (sql,) in cursor.fetchall():
            renamed = sql.replace(f'"{table}"', f'"{bare}"', 1 if "TABLE" in sql[:15] else -1)
            if "INDEX" in sql[:20]:
                renamed = renamed.replace('INDEX "', 'INDEX "bare_', 1)
            cursor.execute(renamed)


def insert_bare(table: str, columns: list[str], rows: list[Any]) -> None:
    """One statement and one transaction, in the form that is fastest for each database."""
    from django.db import connection, transaction

    into = f"{table} ({', '.join(columns)})"
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.executemany(
                f"INSERT INTO {into} VALUES ({', '.join(['%s'] * len(columns))})", rows
            )
            return
        raw: Any = connection.connection
        with raw.cursor() as plain, plain.copy(f"COPY {into} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)


def beside_sends(profile: str, folder: Path, options: argparse.Namespace) -> bool:
    """Send without a replay and with one; whether none failed and p95 is at most three times."""
    extra = UNLIMITED | {"SIGNUP_TOKENS": "1000000000"}
    service = {"embedded": Embedded, "full": Stack}[profile](folder, extra_env=extra)
    with service:
        environment = clean_environment() | make_keys(folder) | {"VAR_DIR": str(folder)}
        if isinstance(service, Stack):
            addresses = {"DATABASE_URL": service.postgres.url, "REDIS_URL": service.redis.url}
            environment |= addresses
        callers = [Caller(service.url, f"caller-{number}") for number in range(CALLERS)]
        for caller in callers:
            caller.register()
            caller.send()
        until = time.monotonic() + options.sends
        alone = send_until(callers, lambda: time.monotonic() > until)
        command = [sys.executable, "manage.py", "replay", *(options.names or [])]
        with subprocess.Popen(command, cwd=PROJECT, env=environment) as replaying:
            began = time.monotonic()
            beside = send_until(callers, lambda: replaying.poll() is not None)
            took = time.monotonic() - began
        missing = [caller.name for caller in callers if shown(caller) != len(caller.statuses)]
        compare = [sys.executable, "-m", "tests.stack.compare_read_models"]
        differs = subprocess.run(compare, cwd=PROJECT, env=environment, check=False).returncode
    statuses = Counter(status for caller in callers for status in caller.statuses)
    ratio = percentile(beside, 95) / percentile(alone, 95)
    print(f"  {SENDS_A_SECOND} sends/s: {dict(statuses)}")
    print(f"  without a replay: {len(alone)} sends, {milliseconds(alone)}")
    print(f"  beside one of {took:.1f} s: {len(beside)} sends, {milliseconds(beside)}")
    print(
        f"  p95 ratio {ratio:.2f}; the replay ended with {replaying.returncode}; callers that miss"
        f" something: {missing}; read models differ from the log: {bool(differs)}",
        flush=True,
    )
    held = set(statuses) == {http.HTTPStatus.CREATED} and not missing and not differs
    return held and replaying.returncode == 0 and ratio <= ASKED_P95_RATIO


def send_until(callers: Sequence[Caller], is_over: Callable[[], bool]) -> list[float]:
    """Let each caller send at its own fixed times until it is over; how long the sends took."""
    began, before = time.monotonic(), [len(caller.seconds) for caller in callers]
    every = len(callers) / SENDS_A_SECOND

    def send(number: int) -> None:
        due = began + number / SENDS_A_SECOND
        while not is_over():
            time.sleep(max(0.0, due - time.monotonic()))
            callers[number].send()
            due += every

    with ThreadPoolExecutor(len(callers)) as threads:
        list(threads.map(send, range(len(callers))))
    return [
        each
        for caller, first in zip(callers, before, strict=True)
        for each in caller.seconds[first:]
    ]


def shown(caller: Caller) -> int:
    """How many messages the API shows of a caller."""
    _, (conversation,) = caller.call("GET", "/conversations/")
    path, count, after = f"/conversations/{conversation['id']}/messages/?limit=1000", 0, ""
    while page := caller.call("GET", path + after)[1]:
        count, after = count + len(page), f"&after={page[-1]['id']}"
    return count


if __name__ == "__main__":
    sys.exit(main())
