"""A log that moves from SQLite to PostgreSQL: how long its dump and its load take, and how large.

    python -m benchmarks.move [--events N]

A log of realistic mix, sealed, with keys and logins, is dumped by `manage.py dump_log`, loaded into
a PostgreSQL of its own by `manage.py load_log`, verified there with all that follows from it by
`manage.py verify`, and dumped again: the two files have to be the same to the byte, and the read
models those that a replay gives. Times are those of the whole commands, the start of their
processes included.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import django

from devstack.application import COMMANDS, PROJECT, clean_environment, make_keys, run_once
from devstack.services import start_postgres

MEBIBYTE = 1024 * 1024
#: Rows of keys and logins that share an insert.
INSERTED_ROWS = 1_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.move")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--fill", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        return fill_here(options.events)
    with tempfile.TemporaryDirectory(prefix="chatledger-") as folder:
        return measure(Path(folder), options.events)


def measure(folder: Path, events: int) -> int:
    """Move a log of so many events, and print what that takes."""
    print(f"{events:,} events, {os.cpu_count()} cores:", flush=True)
    sqlite = clean_environment() | make_keys(folder)
    sqlite |= {"VAR_DIR": str(folder), "DJANGO_SETTINGS_MODULE": "config.settings"}
    run_once("migrate", COMMANDS["migrate"], sqlite, folder)
    run([sys.executable, "-m", "benchmarks.move", "--fill", "--events", str(events)], sqlite)
    there, back = folder / "there.dump", folder / "back.dump"
    timed("dump of SQLite", ["dump_log", str(there)], sqlite, events)
    size = there.stat().st_size
    print(f"  the dump has {size / MEBIBYTE:,.1f} MiB, {size / events:,.0f} bytes an event")
    again = folder / "again"
    again.mkdir()
    to_sqlite = sqlite | {"VAR_DIR": str(again)}
    run_once("migrate", COMMANDS["migrate"], to_sqlite, again)
    timed("load into SQLite", ["load_log", str(there)], to_sqlite, events)
    timed("verify on SQLite", ["verify"], to_sqlite, events)
    postgres = start_postgres(folder / "postgres")
    try:
        # Nothing here asks Redis, but a profile has either both or none.
        full = sqlite | {"DATABASE_URL": postgres.url, "REDIS_URL": "redis://127.0.0.1:1/0"}
        run_once("migrate", COMMANDS["migrate"], full, folder)
        timed("load into PostgreSQL", ["load_log", str(there)], full, events)
        timed("verify on PostgreSQL", ["verify"], full, events)
        timed("dump of PostgreSQL", ["dump_log", str(back)], full, events)
        same = there.read_bytes() == back.read_bytes()
        compare = [sys.executable, "-m", "tests.stack.compare_read_models"]
        shown = subprocess.run(compare, cwd=PROJECT, env=full, check=False).returncode == 0
    finally:
        postgres.stop()
    print(f"  both dumps are {'the same' if same else 'DIFFERENT'}", end=", ")
    print(f"the read models are {'those of a replay' if shown else 'OTHERS than a replay gives'}")
    return 0 if same and shown else 1


def timed(what: str, command: list[str], env: Mapping[str, str], events: int) -> None:
    """Run a command of `manage.py` and print how long it took, and what it used."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "manage.py", *command],
        cwd=PROJECT,
        env=dict(env),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert not process.returncode, f"{command[0]} failed"
    print(
        f"  {what}: {seconds:.1f} s, {events / seconds:,.0f} events/s,"
        f" {used.ru_utime + used.ru_stime:.1f} s of CPU, peak {used.ru_maxrss / 1024:.0f} MiB",
        flush=True,
    )


def run(command: list[str], env: Mapping[str, str]) -> None:
    subprocess.run(
        command, cwd=PROJECT, env=env, check=True, capture_output=True, text=True, timeout=3600
    )


def fill_here(events: int) -> int:
    """Fill the database of this process's settings: events, keys, logins, seals."""
    django.setup()
    from django.db import connection

    from accounts.domain import UsernameClaim
    from accounts.models import Credential
    from benchmarks.realistic_log import fill
    from eventstore import keys
    from eventstore.cause import Cause
    from eventstore.database import writing
    from eventstore.log import event_log
    from eventstore.models import DataKey, EventRecord
    from eventstore.seals.sealer import Sealer

    fill(events)
    users = list(
        EventRecord.objects.filter(topic="chatledger.accounts.UserRegistered").values_list(
            "stream_id", flat=True
        )
    )
    claims = [UsernameClaim.claim(uuid4(), user_id=user) for user in users]
    with writing():
        for user in users:
            keys.create_key(user)
        event_log().append(*claims, cause=Cause("anonymous"))
        Credential.objects.bulk_create(
            [
                Credential(user_id=claim.user_id, claim_id=claim.id, password_hash="x" * 97)
                for claim in claims
            ],
            INSERTED_ROWS,
        )
        keys.names_key()
    sealer = Sealer()
    while sealer.step():
        pass
    assert DataKey.objects.count() > len(users)
    connection.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
