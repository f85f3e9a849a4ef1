"""Run Chatledger's commands as a user does: a process with an environment of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.environment import PROJECT_DIR, Environment

TIMEOUT_SECONDS = 30.0

FULL = {
    "DATABASE_URL": "postgresql://nobody:canary-password@127.0.0.1:1/nowhere",
    "REDIS_URL": "redis://:canary-password@127.0.0.1:1/0",
}


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment without any of the service's settings, plus the changes."""
    ours = {name.upper() for name in Environment.model_fields}
    return {name: value for name, value in os.environ.items() if name not in ours} | changes


def manage(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run `manage.py` to its end."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT_DIR,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


@contextmanager
def running(
    *arguments: str, folder: Path = PROJECT_DIR, **changes: str
) -> Iterator[subprocess.Popen[str]]:
    """Run `manage.py` for as long as the block takes."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=folder,
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def the_line(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a refused command writes."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert result.stdout == ""
    return lines[0]
