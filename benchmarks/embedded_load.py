"""Sixteen clients that send as fast as they can to the embedded profile.

python -m benchmarks.embedded_load [SECONDS] [CLIENTS]
"""

import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.caller import Caller, milliseconds, percentile
from devstack.application import UNLIMITED, Embedded
from tests.stack.ledger_check import read_sqlite

ASKED_P99_SECONDS = 0.5


def main(seconds: int = 30, clients: int = 16) -> int:
    environment = UNLIMITED | {"SIGNUP_TOKENS": "100000000"}
    with tempfile.TemporaryDirectory(prefix="chatledger-") as folder:
        with Embedded(Path(folder), extra_env=environment) as service:
            callers = [Caller(service.url, f"load-{number}") for number in range(clients)]
            for caller in callers:
                caller.register()
            deadline = time.monotonic() + seconds

            def send_until_the_end(caller: Caller) -> None:
                while time.monotonic() < deadline:
                    caller.send()

            with ThreadPoolExecutor(clients) as threads:
                list(threads.map(send_until_the_end, callers))
            locked = "database is locked" in service.child.log_tail()
        violations = read_sqlite(service.folder / "chatledger.sqlite3").violations()
    took = [each for caller in callers for each in caller.seconds]
    statuses = Counter(status for caller in callers for status in caller.statuses)
    print(f"embedded, {clients} clients for {seconds} s, {os.cpu_count()} cores shared with them:")
    print(f"  {len(took) / seconds:.0f} sends/s, {dict(statuses)}, {milliseconds(took)}")
    print(
        f"  'database is locked' in the log: {locked}; violations of the invariants: {violations}"
    )
    held = set(statuses) == {201} and not locked and not violations
    return 0 if held and percentile(took, 99) < ASKED_P99_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
