"""Both profiles behind one face: an address, a client, and what a checker needs to look inside."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from devstack.application import PROJECT, UNLIMITED, Embedded, make_keys
from devstack.stack import Stack
from tests.stack.client import User, register
from tests.stack.ledger_check import Ledger, read_postgres, read_sqlite
from tests.stack.migrated import migrated

#: Longer than any message may take to end in these tests.
REST_SECONDS = 60.0


class Service:
    """A running service of either profile."""

    profile: str

    def __init__(self, running: Embedded | Stack) -> None:
        self._running = running
        #: Everybody who was registered by way of `user`.
        self.users: list[User] = []

    @property
    def url(self) -> str:
        return self._running.url

    def __enter__(self) -> Self:
        self._running.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running.__exit__(kind, error, trace)

    def user(self, name: str) -> User:
        """Register a user and log in."""
        user = register(self.url, name)
        self.users.append(user)
        return user

    def ledger(self) -> Ledger:
        """The log, read by plain SQL."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """The environment of a process beside the service."""
        raise NotImplementedError

    def restart_web(self, **env: str) -> None:
        """Stop what takes the requests, and start it again with this added to its environment."""
        raise NotImplementedError

    def kill_worker(self) -> None:
        """End what generates as `kill -9` does, and start it again."""
        raise NotImplementedError

    def run(self, *command: str, told: str = "") -> subprocess.CompletedProcess[str]:
        """Run a Python command in the service's environment; `told` is its standard input."""
        return subprocess.run(
            [sys.executable, *command],
            input=told,
            env=self.environment(),
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def at_rest(self) -> Ledger:
        """Wait until every message has ended, and check every invariant of the log."""
        wait_for(lambda: not self.ledger().pending, REST_SECONDS, "every message to end")
        ledger = self.ledger()
        assert not (found := ledger.violations()), "\n".join(found)
        compared = self.run("-m", "tests.stack.compare_read_models")
        assert (compared.stdout, compared.returncode) == ("", 0), compared.stderr
        return ledger


class EmbeddedService(Service):
    profile = "embedded"

    def __init__(self, folder: Path, **extra_env: str) -> None:
        self.process = Embedded(folder, extra_env=UNLIMITED | extra_env)
        super().__init__(self.process)

    def ledger(self) -> Ledger:
        return read_sqlite(self.process.folder / "chatledger.sqlite3")

    def environment(self) -> dict[str, str]:
        return without_metrics(self.process.child.env)

    def restart_web(self, **env: str) -> None:
        self.process.stop()
        self.process.child.env |= env
        self.process.start()

    def kill_worker(self) -> None:
        self.process.kill()
        self.process.start()


class FullService(Service):
    profile = "full"

    def __init__(
        self,
        folder: Path,
        *,
        stack: type[Stack] = Stack,
        extra_env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        env = UNLIMITED | dict(extra_env or {})
        if "like" not in options:
            options["like"] = migrated()
        self.stack = stack(folder, extra_env=env, **options)
        super().__init__(self.stack)

    def ledger(self) -> Ledger:
        return read_postgres(self.stack.postgres.url)

    def environment(self) -> dict[str, str]:
        env = self.stack.processes["followers-1"].env
        return without_metrics(env) | make_keys(self.stack.folder)

    def restart_web(self, **env: str) -> None:
        web = self.stack.processes["web-1"]
        web.stop()
        web.env |= env
        self.stack.start("web-1")

    def kill_worker(self) -> None:
        self.stack.kill("worker-1")
        self.stack.start("worker-1")


def without_metrics(env: Mapping[str, str]) -> dict[str, str]:
    """An environment for one more process, which cannot have the port that another one has."""
    return {name: value for name, value in env.items() if name != "METRICS_PORT"}


def make_service(
    profile: str, folder: Path, env: Mapping[str, str], *, workers: int = 1
) -> EmbeddedService | FullService:
    """A service of this profile; `workers` are those of the full stack."""
    if profile == "embedded":
        return EmbeddedService(folder, **env)
    return FullService(folder, extra_env=env, workers=workers)


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait for a condition, with a bound; returns what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.05)
    return found
