"""One send each second on an idle full stack, from the request to the response.

python -m benchmarks.idle_latency [SENDS]
"""

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.caller import Caller, milliseconds, percentile
from devstack.application import UNLIMITED
from devstack.stack import Stack

PAUSE_SECONDS = 1.0
ASKED_MEDIAN_SECONDS = 0.015


def main(sends: int = 30) -> int:
    environment = UNLIMITED | {"SIGNUP_TOKENS": "1000000"}
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        Stack(Path(folder), extra_env=environment) as stack,
    ):
        caller = Caller(stack.url, "idle")
        caller.register()
        caller.send()
        caller.seconds.clear()
        for _ in range(sends):
            time.sleep(PAUSE_SECONDS)
            caller.send()
    print(f"idle full stack, {sends} sends, one a second, {os.cpu_count()} cores:")
    print(f"  {dict(Counter(caller.statuses))}, {milliseconds(caller.seconds)}")
    return 0 if percentile(caller.seconds, 50) < ASKED_MEDIAN_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
