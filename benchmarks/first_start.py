"""`make run` in an empty clone: how long until it serves, the first time and the next.

    python -m benchmarks.first_start

What is committed is cloned; packages come from wherever pip gets them, without its cache.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from devstack.application import PROJECT, is_ready
from devstack.processes import free_port

ASKED_FIRST_SECONDS = 60.0
ASKED_LATER_SECONDS = 3.0


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="chatledger-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(clone)], check=True)
        first = seconds_until_ready(clone)
        later = [seconds_until_ready(clone) for _ in range(3)]
    print(f"make run in an empty clone, Python {sys.version.split()[0]}, {os.cpu_count()} cores:")
    print(
        f"  the first 200 after {first:.1f} s; later starts: {sorted(later)[1]:.1f} s (median of 3)"
    )
    return 0 if first < ASKED_FIRST_SECONDS and max(later) < ASKED_LATER_SECONDS else 1


def seconds_until_ready(clone: Path) -> float:
    """Run `make run` until its first 200, then stop it as Ctrl-C does."""
    port = free_port()
    python = os.path.realpath(sys.executable)
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": os.environ["HOME"],
        "PORT": str(port),
        "PIP_NO_CACHE_DIR": "1",
    }
    began = time.monotonic()
    process = subprocess.Popen(
        ["make", "run", f"PYTHON={python}"],
        cwd=clone,
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not is_ready(port):
            assert process.poll() is None, "make run ended"
            assert time.monotonic() - began < ASKED_FIRST_SECONDS * 5, "make run does not serve"
            time.sleep(0.05)
        return time.monotonic() - began
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=20)


if __name__ == "__main__":
    sys.exit(main())
