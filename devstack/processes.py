"""Child processes: started, watched and stopped by pid, and never outliving their parent."""

import ctypes
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from signal import Signals

LOOPBACK = "127.0.0.1"
POLL_SECONDS = 0.02
METRICS_PORT_ABOVE = 1000
#: Below those that the system gives to whoever asks for any, so that what is free now is free when
#: its server comes, and when one that was killed comes back.
PORTS = range(1100, 32_000)
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class DevstackError(Exception):
    """Why the stack cannot run, in one line for the person who started it."""


@dataclass(frozen=True)
class Account:
    """The system user that a child runs as."""

    uid: int
    gid: int


@dataclass
class Child:
    """One process with its log; it can be stopped, killed and started again."""

    name: str
    command: list[str]
    env: dict[str, str]
    log_file: Path
    cwd: Path
    #: Where it serves, and where it tells its metrics.
    address: str = "-"
    metrics: str = "-"
    account: Account | None = None
    orphan_signal: Signals = Signals.SIGKILL
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _log_start: int = 0

    def start(self) -> None:
        """Start the process without waiting for what it does."""
        if self.running:
            raise DevstackError(f"{self.name} runs already (pid {self.pid})")
        # The kernel ties a death signal to the thread that forked, so that one has to last.
        _spawner(os.getpid()).submit(self._spawn).result()

    @property
    def pid(self) -> int:
        """The pid of the process, also after its end; 0 before its first start."""
        return self._process.pid if self._process else 0

    @property
    def exit_code(self) -> int | None:
        """None while it runs; as in `subprocess`, minus the signal's number when one ended it."""
        return self._process.poll() if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def how_it_ended(self) -> str:
        code = self.exit_code
        return f"exit {code}" if code is None or code >= 0 else Signals(-code).name

    def send(self, number: Signals) -> None:
        """Send a signal to the process, if it is there."""
        if self._process:
            self._process.send_signal(number)

    def wait(self, timeout_seconds: float) -> bool:
        """Whether the process has ended within the time."""
        with suppress(subprocess.TimeoutExpired):
            if self._process:
                self._process.wait(max(timeout_seconds, 0))
        return not self.running

    def stop(self, timeout_seconds: float = 10, how: Signals = Signals.SIGTERM) -> None:
        """Ask the process to end, and kill it when it has not done so in time."""
        self.send(how)
        if not self.wait(timeout_seconds):
            self.kill()

    def kill(self) -> None:
        """End the process at once, as `kill -9` does."""
        self.send(Signals.SIGKILL)
        self.wait(timeout_seconds=10)

    def log_tail(self) -> str:
        """What the process has logged since its last start, at most 16 KiB."""
        with self.log_file.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - 16384))
            return log.read().decode(errors="replace")

    def last_line(self) -> str:
        """The last thing of weight that the process has logged since its start."""
        lines = self.log_tail().strip().splitlines() or ["nothing in its log"]
        return next((line for line in reversed(lines) if "FATAL" in line), lines[-1]).strip()

    def _spawn(self) -> None:
        with self.log_file.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self.command,
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C goes to the parent alone, which stops its children in order.
                start_new_session=True,
                preexec_fn=_end_with_parent(  # noqa: PLW1509  # it makes two system calls
                    os.getpid(), self.orphan_signal
                ),
                user=self.account.uid if self.account else None,
                group=self.account.gid if self.account else None,
                extra_groups=[] if self.account else None,
            )


def wait_until_ready(
    children: list[Child], ready: Callable[[], bool], *, timeout_seconds: float, what: str
) -> None:
    """Wait until `ready`; fail with the child's last line when one of them has ended meanwhile."""
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        for child in children:
            if not child.running:
                ended = f"{child.name} ended ({child.how_it_ended})"
                raise DevstackError(f"{ended}: {child.last_line()}")
        if time.monotonic() > deadline:
            raise DevstackError(f"{what} is not ready after {timeout_seconds:.0f} s")
        time.sleep(POLL_SECONDS)


def free_port() -> int:
    """A loopback port that nobody listens on, picked at random."""
    while why_not_free(port := secrets.choice(PORTS)):
        pass
    return port


def free_metrics_ports(port: int | None = None) -> Iterator[int]:
    """Loopback ports for metrics: from a thousand above `port` on, or from anywhere."""
    first = port + METRICS_PORT_ABOVE if port else secrets.choice(PORTS)
    if first not in PORTS:
        first = PORTS.start
    for candidate in (*range(first, PORTS.stop), *range(PORTS.start, first)):
        if not why_not_free(candidate):
            yield candidate


def why_not_free(port: int) -> str:
    """Why a server could not listen on this loopback port now; empty when it could."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError as error:
            return os.strerror(error.errno or 0)
        except OverflowError:
            return "No such port"
    return ""


@cache
def _spawner(pid: int) -> ThreadPoolExecutor:
    # Keyed by the pid, since threads do not survive a fork.
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"spawner-{pid}")


_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _end_with_parent(parent: int, orphan_signal: Signals) -> Callable[[], None] | None:
    prctl = _prctl
    if prctl is None:
        return None

    def set_death_signal() -> None:
        prctl(PR_SET_PDEATHSIG, int(orphan_signal))
        # The parent may have died between the fork and the call above.
        if os.getppid() != parent:
            os._exit(1)

    return set_death_signal
