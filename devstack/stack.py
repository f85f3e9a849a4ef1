"""The full stack as separate processes: PostgreSQL, Redis, web, worker, followers."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from signal import Signals
from typing import Self

from devstack.application import (
    COMMANDS,
    KEYS,
    PROJECT,
    clean_environment,
    make_keys,
    run_once,
    wait_until_serving,
)
from devstack.folder import ENVIRONMENT_NAME, own_folder, write_environment, write_processes
from devstack.processes import (
    LOOPBACK,
    Child,
    DevstackError,
    free_metrics_ports,
    free_port,
    why_not_free,
)
from devstack.services import Postgres, Redis

APPLICATION_STOP_SECONDS = 5.0
WATCH_PAUSE_SECONDS = 0.2
RESTARTS_MAX = 5
RESTARTS_SECONDS = 60.0


class Stack:
    """Everything that `docker compose up` starts, as processes of this machine.

    `processes` holds them by name ("postgres", "redis", "web-1", "worker-1", "followers-1"), in the
    order in which they start. With `like`, a stopped PostgreSQL that is migrated, the database is a
    copy of that one's. With `supervise` one that dies is started again, at most `RESTARTS_MAX`
    times a minute for all together; after that `gave_up` is set.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        webs: int = 1,
        workers: int = 1,
        followers: int = 1,
        extra_env: Mapping[str, str] | None = None,
        commands: Mapping[str, list[str]] | None = None,
        like: Postgres | None = None,
        supervise: bool = False,
        report: Callable[[str], None] = print,
    ) -> None:
        self.folder = folder
        self.web_ports = [port + n if port else free_port() for n in range(webs)]
        self.processes: dict[str, Child] = {}
        self.gave_up = threading.Event()
        self._metrics_ports = free_metrics_ports(port)
        self._counts = {"web": webs, "worker": workers, "followers": followers}
        self._extra_env = dict(extra_env or {})
        self._commands = COMMANDS | dict(commands or {})
        self._like = like
        self._supervise = supervise
        self._report = report
        self._application: list[Child] = []
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._supervisor: threading.Thread | None = None
        self._exits = ExitStack()

    @property
    def url(self) -> str:
        """The address of the first web process."""
        return f"http://{LOOPBACK}:{self.web_ports[0]}"

    @property
    def urls(self) -> list[str]:
        return [f"http://{LOOPBACK}:{port}" for port in self.web_ports]

    @property
    def environment_file(self) -> Path:
        """What a shell reads to run commands against this stack, while it runs."""
        return self.folder / ENVIRONMENT_NAME

    def open(self) -> None:
        """Start everything; `wait_until_ready` says when it serves."""
        try:
            self.folder = self._exits.enter_context(own_folder(self.folder))
            self._check_ports()
            self._start_services()
            self._start_application()
        except BaseException:
            self.close()
            raise

    def wait_until_ready(self) -> None:
        """Wait until every web process answers `/readyz/` with 200."""
        for port in self.web_ports:
            wait_until_serving(self._application, port)
        if self._supervise:
            self._supervisor = threading.Thread(target=self._watch, name="supervisor", daemon=True)
            self._supervisor.start()

    def close(self) -> None:
        """Stop everything in the reverse order, within 10 s."""
        self._stopping.set()
        if self._supervisor:
            self._supervisor.join()
        self._exits.close()

    def start(self, name: str) -> None:
        """Start a process that has ended, and wait until it answers if it is one that does."""
        kind, _, number = name.partition("-")
        servers = {"postgres": self.postgres.start, "redis": self.redis.start}
        with self._starting:
            servers.get(name, self.processes[name].start)()
            write_processes(self.folder, self.processes.values())
        if kind == "web":
            wait_until_serving([self.processes[name]], self.web_ports[int(number) - 1])

    def kill(self, name: str) -> None:
        """End a process as `kill -9` does."""
        self.processes[name].kill()

    def _check_ports(self) -> None:
        for port in self.web_ports:
            if reason := why_not_free(port):
                raise DevstackError(f"port {port}: {reason}; set PORT to another one")

    def _start_services(self) -> None:
        self.postgres = Postgres(self.folder, like=self._like)
        self._exits.callback(self.postgres.stop)
        self.postgres.start()
        self.redis = Redis(self.folder)
        self._exits.callback(self.redis.stop)
        self.redis.start()
        self.processes |= {"postgres": self.postgres.child, "redis": self.redis.child}

    def _start_application(self) -> None:
        keys = make_keys(self.folder)
        if self._like is None:
            run_once("migrate", self._commands["migrate"], self._env("migrate", keys), self.folder)
        write_environment(self.folder, self._addresses() | keys)
        self._exits.callback(self._stop_application)
        for kind, count in self._counts.items():
            for number in range(1, count + 1):
                self._start_process(kind, number, self._env(kind, keys))
        write_processes(self.folder, self.processes.values())

    def _start_process(self, kind: str, number: int, env: dict[str, str]) -> None:
        name = f"{kind}-{number}"
        child = Child(name, self._commands[kind], env, self.folder / f"{name}.log", PROJECT)
        if kind == "web":
            port = self.web_ports[number - 1]
            child.env |= {"HOST": LOOPBACK, "PORT": str(port)}
            child.address = f"{LOOPBACK}:{port}"
        if "METRICS_PORT" not in self._extra_env:
            port = next(self._metrics_ports)
            child.env |= {"METRICS_HOST": LOOPBACK, "METRICS_PORT": str(port)}
            child.metrics = f"{LOOPBACK}:{port}"
        self.processes[name] = child
        self._application.append(child)
        child.start()

    def _env(self, kind: str, keys: Mapping[str, str]) -> dict[str, str]:
        own_keys = {name: keys[name] for name in KEYS[kind]}
        return clean_environment() | self._addresses() | own_keys | self._extra_env

    def _addresses(self) -> dict[str, str]:
        return {
            "VAR_DIR": str(self.folder),
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.redis.url,
        }

    def _stop_application(self) -> None:
        deadline = time.monotonic() + APPLICATION_STOP_SECONDS
        for child in reversed(self._application):
            child.send(Signals.SIGTERM)
        for child in reversed(self._application):
            if not child.wait(deadline - time.monotonic()):
                child.kill()

    def _watch(self) -> None:
        restarts: deque[float] = deque(maxlen=RESTARTS_MAX)
        while not self._stopping.wait(WATCH_PAUSE_SECONDS):
            for child in self.processes.values():
                with self._starting:
                    if child.running:
                        continue
                    ended = f"{child.name} (pid {child.pid}) ended ({child.how_it_ended})"
                    now = time.monotonic()
                    if len(restarts) == RESTARTS_MAX and now - restarts[0] < RESTARTS_SECONDS:
                        self._report(f"{ended}, after {RESTARTS_MAX} restarts within a minute")
                        self.gave_up.set()
                        return
                    restarts.append(now)
                    try:
                        child.start()
                        write_processes(self.folder, self.processes.values())
                    except OSError as error:
                        self._report(f"{ended}, and cannot be started again: {error}")
                        self.gave_up.set()
                        return
                    self._report(f"{ended}; started again as pid {child.pid}")

    def __enter__(self) -> Self:
        self.open()
        try:
            self.wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
