"""What PostgreSQL and Redis have in common here: one child process on one loopback port."""

import time
from pathlib import Path
from signal import Signals
from typing import Self

from devstack.processes import Child, DevstackError, wait_until_ready, why_not_free

READY_TIMEOUT_SECONDS = 30.0
STARTS_MAX = 10
STARTS_PAUSE_SECONDS = 0.3
STOP_TIMEOUT_SECONDS = 3.0
# What a predecessor that was killed leaves for a moment: its shared memory, its lock file.
PASSING_FAULTS = ("still in use", "postmaster.pid")


class Server:
    """One server process on one loopback port, which stays the same from start to start."""

    child: Child
    port: int

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def log_file(self) -> Path:
        return self.child.log_file

    def start(self) -> None:
        """Start the server on the same port and data as before, and wait until it answers."""
        self._wait_for_port()
        for _ in range(STARTS_MAX):
            self.child.start()
            try:
                wait_until_ready(
                    [self.child],
                    self._answers,
                    timeout_seconds=READY_TIMEOUT_SECONDS,
                    what=self.child.name,
                )
            except BaseException as error:
                fault = "" if self.child.running else self.child.log_tail()
                self.child.kill()
                passes = any(sign in fault for sign in PASSING_FAULTS)
                if not passes or not isinstance(error, DevstackError):
                    raise
            else:
                return
            time.sleep(STARTS_PAUSE_SECONDS)
        raise DevstackError(f"{self.child.name} cannot start: {self.child.last_line()}")

    def kill(self) -> None:
        """End the server as `kill -9` does."""
        self.child.kill()

    def _wait_for_port(self) -> None:
        for _ in range(STARTS_MAX):
            if self.child.running or not why_not_free(self.port):
                return
            time.sleep(STARTS_PAUSE_SECONDS)
        reason = why_not_free(self.port)
        raise DevstackError(f"{self.child.name} cannot listen on port {self.port}: {reason}")

    def _answers(self) -> bool:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.stop(STOP_TIMEOUT_SECONDS, Signals.SIGINT)
