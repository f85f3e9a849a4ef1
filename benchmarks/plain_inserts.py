"""What a database does with the rows of a send when nobody numbers, stamps or locks anything.

The rows go into a table with the same columns, constraints and indexes as the log, whose positions
the database counts itself. Each connection debits an account of its own, each message is new.
"""

import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any
from uuid import uuid4

from psycopg.conninfo import conninfo_to_dict

from benchmarks.replay import make_like
from devstack import postgres_install

TABLE = "bare_event"
COLUMNS = "stream_id, version, topic, data, at, event_id, actor, request_id, causation_id"
AT = 1_780_000_000_000_000
#: With a digit behind the colon: pgbench would take a letter for the name of a variable.
ACTOR, REQUEST_ID = f"user:0{str(uuid4())[1:]}", uuid4().hex
#: Versions that are kept free for each run, so that none is written twice.
VERSIONS_A_RUN = 10_000_000
#: Longer than anybody waits for his turn here.
BUSY_SECONDS = 30

#: `plain(seconds, connections=…, group=…)`: appends a second.
Plain = Callable[..., float]


def plain_inserts(events: Sequence[Any]) -> Plain:
    """The plain inserts of such events for the database of this process's settings."""
    from django.db import connection

    make_like(TABLE, "eventstore_event")
    kind = WithPgbench if connection.vendor == "postgresql" else WithSqlite
    return kind(events)


class WithPgbench:
    """Prepared statements of pgbench, a statement and a transaction a group."""

    def __init__(self, events: Sequence[Any]) -> None:
        self._debited, self._sent = events
        self._account = uuid4()
        self._runs = count(1)
        self._pgbench = postgres_install.find().binary("pgbench")
        server = conninfo_to_dict(os.environ["DATABASE_URL"])
        names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
        names |= {"dbname": "PGDATABASE"}
        self._reaches = {name: str(server[key]) for key, name in names.items()}

    def __call__(self, seconds: float, *, connections: int, group: int) -> float:
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
            script.write(self._script(group))
            script.flush()
            done = subprocess.run(
                [
                    *(str(self._pgbench), "--no-vacuum", "--protocol=prepared"),
                    *(f"--client={connections}", "--jobs=1", f"--time={seconds:.0f}"),
                    *("--define", f"version={next(self._runs) * VERSIONS_A_RUN}"),
                    *("--file", script.name),
                ],
                env=self._reaches,
                check=False,
                capture_output=True,
                text=True,
            )
        found = re.search(r"tps = ([0-9.]+)", done.stdout)
        assert found, done.stderr
        assert not done.returncode, done.stderr
        return float(found[1]) * group

    def _script(self, group: int) -> str:
        pairs = ", ".join(self._pair(number) for number in range(group))
        # Each of its clients keeps its variables from transaction to transaction.
        return (
            f"\\set version :version + {group}\nINSERT INTO {TABLE} ({COLUMNS}) VALUES {pairs};\n"
        )

    def _pair(self, number: int) -> str:
        account = f"overlay('{self._account}' placing lpad(:client_id::text, 4, '0') from 1)"
        debited = self._row(f"{account}::uuid", f":version::int - {number}", self._debited)
        return f"{debited}, {self._row('gen_random_uuid()', '1', self._sent)}"

    def _row(self, stream: str, version: str, event: Any) -> str:
        return (
            f"({stream}, {version}, '{event.topic}', '\\x{event.state.hex()}', {AT},"
            f" gen_random_uuid(), '{ACTOR}', '{REQUEST_ID}', NULL::uuid)"
        )


class WithSqlite:
    """Prepared statements of the sqlite3 module, each thread with a connection of its own."""

    insert = f"INSERT INTO {TABLE} ({COLUMNS}) VALUES ({', '.join('?' * 9)})"

    def __init__(self, events: Sequence[Any]) -> None:
        self._debited, self._sent = events
        self._runs = count(1)

    def __call__(self, seconds: float, *, connections: int, group: int) -> float:
        ready = threading.Barrier(connections)
        first = next(self._runs) * VERSIONS_A_RUN

        def insert(_: int) -> int:
            from django.db import connection

            # Its connection, since it has the settings of those of the log.
            connection.ensure_connection()
            raw: Any = connection.connection
            raw.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
            account, version, done = uuid4().hex, first, 0
            ready.wait()
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                rows = []
                for _ in range(group):
                    version += 1
                    rows += [
                        self._row(account, version, self._debited),
                        self._row(uuid4().hex, 1, self._sent),
                    ]
                raw.execute("BEGIN IMMEDIATE")
                raw.executemany(self.insert, rows)
                raw.execute("COMMIT")
                done += group
            connection.close()
            return done

        with ThreadPoolExecutor(connections) as threads:
            return sum(threads.map(insert, range(connections))) / seconds

    def _row(self, stream: str, version: int, event: Any) -> tuple[Any, ...]:
        said = (event.topic, event.state, AT, uuid4().hex, ACTOR, REQUEST_ID, None)
        return (stream, version, *said)
