"""Appends a second through the log against what the database does with the same rows by itself.

    python -m benchmarks.appends [--quick]

An append is the two events of a send. On a PostgreSQL of its own and on SQLite,
in one process, contenders in turn:

- *writer*: the process's shared writer, with sixteen threads that hand it a send each and wait: it
  decides, encrypts and encodes, too;
- *alone*: `eventstore.append` in one thread, as many appends at a time as the writer commits on
  average: the same statement with events that are encoded beforehand, and nobody to be woken;
- *plain*: prepared inserts from sixteen connections, a transaction an append; into a table with the
  same indexes, but without anything that numbers, stamps or locks;
- *groups*: the same, as many appends a transaction as the writer commits on average;
- *one*: the same groups from one connection, as the writer has one.

On PostgreSQL the plain inserts come from its own pgbench (compiled), on SQLite from the sqlite3
module.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import django

from benchmarks.caller import PASSWORD
from benchmarks.fills import database
from benchmarks.plain_inserts import plain_inserts
from benchmarks.realistic_log import MESSAGE_BYTES
from benchmarks.table import Row, head, line, reported
from devstack.application import COMMANDS, PROJECT, run_once

THREADS = 16
ROUNDS, ROUND_SECONDS = {False: 7, True: 1}, {False: 2, True: 1}
#: The argument that says: measure on the database of this process's settings.
HERE = "--here"
DATABASES = {"full": "PostgreSQL", "embedded": "SQLite"}
AGAINST = {
    "plain": "plain inserts",
    "groups": "plain inserts in groups",
    "one": "groups, one connection",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.appends")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(HERE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure_here(quick=options.quick)))
        return 0
    print(head())
    found = rows(options)
    for row in found:
        print(f"{line(row)}\n    {row.note}")
    return 0 if all(row.held for row in found) else 1


def rows(options: argparse.Namespace) -> list[Row]:
    """The writer against the database's own limits, on both databases."""
    return [row for profile in DATABASES for row in measure(profile, quick=options.quick)]


def measure(profile: str, *, quick: bool) -> list[Row]:
    """The rows of one database, measured in a process that has its settings."""
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        database(profile, Path(folder)) as environment,
    ):
        run_once("migrate", COMMANDS["migrate"], environment, Path(folder))
        command = [sys.executable, "-m", "benchmarks.appends", HERE]
        command += ["--quick"] if quick else []
        done = subprocess.run(
            command, cwd=PROJECT, env=environment, check=True, stdout=subprocess.PIPE
        )
    figures = json.loads(done.stdout.splitlines()[-1])
    rates, why, violations = figures["rates"], figures["why"], figures["violations"]
    pairs = [("writer", key) for key in AGAINST] + [("alone", "one")]
    found = [
        reported(
            f"appends, {DATABASES[profile]}: {one} / {AGAINST[other]}",
            rates[one],
            rates[other],
            unit="/s",
            note="; ".join([why[one], *violations]),
        )
        for one, other in pairs
    ]
    return [replace(row, held=not violations) for row in found]


def measure_here(*, quick: bool) -> dict[str, Any]:
    """Appends a second of each contender and round, and where the writer's time goes."""
    django.setup()
    senders = [Sender() for _ in range(THREADS)]
    through_the_writer(senders, 1)
    spent = Spent()
    through_the_writer(senders, ROUND_SECONDS[quick])
    group = round(spent.jobs_a_commit())
    plain = plain_inserts(Sender().two_events())
    contenders: dict[str, Callable[[float], float]] = {
        "writer": partial(through_the_writer, senders),
        "alone": partial(through_append_alone, senders, group),
        "plain": partial(plain, connections=THREADS, group=1),
        "groups": partial(plain, connections=THREADS, group=group),
        "one": partial(plain, connections=1, group=group),
    }
    rates: defaultdict[str, list[float]] = defaultdict(list)
    why = {}
    for _ in range(ROUNDS[quick]):
        for name, run in contenders.items():
            spent = Spent()
            rates[name].append(run(ROUND_SECONDS[quick]))
            if name in ("writer", "alone"):
                appends = rates[name][-1] * ROUND_SECONDS[quick]
                why[name] = spent.on(appends, group=group, by_writer=name == "writer")
    return {"rates": rates, "why": why, "violations": violations()}


class Sender:
    """One account whose sends follow each other, as the log stores them."""

    def __init__(self) -> None:
        from accounts.commands import RegisterUser, register_user
        from eventstore.cause import Cause

        self.account, self.version = uuid4(), 0
        self.cause = Cause(f"user:{self.account}", uuid4().hex)
        self._debited, self._sent = encoded(self.account)
        # Of this one the events are made anew each time, through the writer.
        self.user = register_user(RegisterUser(self.account.hex, PASSWORD), self.cause).user_id

    def two_events(self) -> list[Any]:
        from eventsourcing.persistence import StoredEvent

        self.version += 1
        debited = ("chatledger.accounts.TokensDebited", self._debited)
        sent = ("chatledger.conversations.MessageSent", self._sent)
        return [
            StoredEvent(self.account, self.version, *debited),
            StoredEvent(uuid4(), 1, *sent),
        ]

    def job(self) -> Any:
        from eventstore.append import Job

        return Job(self.two_events(), self.cause, announced=False)


def encoded(account: UUID) -> tuple[bytes, bytes]:
    """What the two events of a send say, at the sizes that they have."""
    import msgspec

    from benchmarks.realistic_log import mark

    debited = {"amount": 100, "message_id": str(uuid4())}
    sent = {
        "user_id": str(account),
        "conversation_id": str(uuid4()),
        "message": mark(uuid4().hex, MESSAGE_BYTES),
        "price": 100,
        "usage_prices": None,
        "deadline_seconds": 90,
    }
    return msgspec.json.encode(debited), msgspec.json.encode(sent)


def through_the_writer(senders: list[Sender], seconds: float) -> float:
    """Appends a second of threads that hand sends to the shared writer and wait."""
    from conversations.commands import SendMessage, send_message

    message = "x" * MESSAGE_BYTES
    ready = threading.Barrier(len(senders))

    def send(sender: Sender) -> int:
        ready.wait()
        until, count = time.perf_counter() + seconds, 0
        while time.perf_counter() < until:
            send_message(
                SendMessage(sender.user, None, uuid4(), message, awaited=True), sender.cause
            )
            count += 1
        return count

    with ThreadPoolExecutor(len(senders)) as threads:
        return sum(threads.map(send, senders)) / seconds


def through_append_alone(senders: list[Sender], group: int, seconds: float) -> float:
    """Appends a second of one thread that commits so many at a time."""
    from django.db import connection

    from eventstore.append import append
    from eventstore.database import writing

    until, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < until:
        jobs = [sender.job() for sender in senders[:group]]
        if connection.vendor == "sqlite":
            with writing():
                append(jobs)
        else:
            append(jobs)
        count += group
    return count / seconds


class Spent:
    """What the writer and this process have done since this was made."""

    def __init__(self) -> None:
        self._wall, self._cpu, self._told = time.perf_counter(), time.process_time(), told()

    def jobs_a_commit(self) -> float:
        jobs, commits, _ = self._since()
        return jobs / commits

    def on(self, appends: float, *, group: int, by_writer: bool) -> str:
        """What so many appends took."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        here = f"{cpu / wall:.0%} of a core in this process, {cpu / appends * 1e6:.0f} µs an append"
        if not by_writer:
            return f"{group} appends a commit; {here}"
        jobs, commits, seconds = self._since()
        return (
            f"{jobs / commits:.1f} appends a commit of {seconds / commits * 1000:.2f} ms, in which"
            f" {seconds / wall:.0%} of the time goes; {here}"
        )

    def _since(self) -> list[float]:
        return [now - before for now, before in zip(told(), self._told, strict=True)]


def told() -> list[float]:
    """Jobs, commits and the seconds of the commits, by the writer's own metrics."""
    from prometheus_client import REGISTRY

    import eventstore.metrics  # noqa: F401 (it registers them)

    names = ("commit_jobs_sum", "commit_jobs_count", "commit_seconds_sum")
    return [REGISTRY.get_sample_value(f"chatledger_{name}") or 0.0 for name in names]


def violations() -> list[str]:
    """Invariant 9, and that no append is there by half (2)."""
    from django.db import connection

    checks = {
        "9: positions have gaps": "SELECT 1 FROM (SELECT count(*) AS events, max(position) AS last"
        " FROM eventstore_event) log WHERE events <> last",
        "9: versions have gaps": "SELECT stream_id FROM eventstore_event GROUP BY stream_id"
        " HAVING count(*) <> max(version)",
        "2: half an append": "SELECT 1 FROM (SELECT"
        " sum(CASE WHEN topic LIKE '%.TokensDebited' THEN 1 ELSE 0 END) AS debits,"
        " sum(CASE WHEN topic LIKE '%.MessageSent' THEN 1 ELSE 0 END) AS messages"
        " FROM eventstore_event) log WHERE debits <> messages",
    }
    found = []
    with connection.cursor() as cursor:
        for name, sql in checks.items():
            cursor.execute(sql)
            if cursor.fetchone():
                found.append(name)
    return found


if __name__ == "__main__":
    sys.exit(main())
