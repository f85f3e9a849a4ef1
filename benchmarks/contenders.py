"""Who is measured: Chatledger in both profiles, and the baseline on both databases.

    with FullChatledger() as a, PostgresBaseline() as b:
        jwts = a.jwts(64)

Everything is as shipped and every commit is on disk. Rate limits are on and count, with amounts
that nobody reaches; a signup grants credit that nobody spends.
"""

import secrets
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol, Self

import psycopg

from benchmarks.caller import Caller
from devstack.application import PROJECT, clean_environment
from devstack.processes import LOOPBACK, Child, free_port, wait_until_ready, why_not_free
from devstack.services import Postgres
from devstack.stack import Stack
from tests.stack.services import EmbeddedService, FullService, Service

SIGNUP_TOKENS = 1_000_000_000
MESSAGE_PRICE = 100
#: On, and out of reach; all else is as shipped.
CHATLEDGER_ENVIRONMENT = {
    "RATE_LIMIT_LOGIN": "1000000/minute",
    "RATE_LIMIT_REGISTER": "1000000/minute",
    "RATE_LIMIT_SEND": "1000000/minute",
    "SIGNUP_TOKENS": str(SIGNUP_TOKENS),
}
START_SECONDS_MAX = 30.0
MIB = 1024 * 1024


class Contender(Protocol):
    """A running service, its data in a folder that goes with it."""

    name: str

    @property
    def url(self) -> str:
        """Its address."""

    def jwts(self, count: int) -> list[str]:
        """Register so many users, with credit that they cannot spend, and log them in."""

    def violations(self) -> list[str]:
        """What must hold of all that was written and does not, once everything has ended."""

    def pids(self) -> dict[str, int]:
        """Its processes by name."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class _InAFolder:
    """What all contenders share: a folder, an exit, and users."""

    url: str

    def __init__(self) -> None:
        self._exits = ExitStack()
        self._users = 0

    def jwts(self, count: int) -> list[str]:
        return [self._jwt() for _ in range(count)]

    def _jwt(self) -> str:
        self._users += 1
        with closing(Caller(self.url, f"bench-{self._users}")) as caller:
            caller.register()
        return caller.jwt

    def _folder(self) -> Path:
        name = self._exits.enter_context(tempfile.TemporaryDirectory(prefix="chatledger-"))
        return Path(name)

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self._exits.close)
            self._start()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def _start(self) -> None:
        raise NotImplementedError


class _Chatledger(_InAFolder):
    service: EmbeddedService | FullService

    @property
    def url(self) -> str:  # type: ignore[override]  # known from the start on
        return self.service.url

    def violations(self) -> list[str]:
        try:
            self.service.at_rest()
        except AssertionError as error:
            return str(error).splitlines()[:20]
        return []

    def _start(self) -> None:
        self.service = self._make(self._folder())
        self._exits.enter_context(self.service)

    def _make(self, folder: Path) -> EmbeddedService | FullService:
        raise NotImplementedError


class EmbeddedChatledger(_Chatledger):
    name = "embedded"

    def pids(self) -> dict[str, int]:
        assert isinstance(self.service, EmbeddedService)
        return {"serve": self.service.process.pid}

    def _make(self, folder: Path) -> EmbeddedService:
        return EmbeddedService(folder, **CHATLEDGER_ENVIRONMENT)


class FullChatledger(_Chatledger):
    name = "full stack"

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options

    def pids(self) -> dict[str, int]:
        assert isinstance(self.service, FullService)
        return {name: child.pid for name, child in self.service.stack.processes.items()}

    def _make(self, folder: Path) -> FullService:
        return _FullService(folder, **self._options)


class _FullService(FullService):
    """The full stack as `make stack` starts it: the tests' own begins with a copy of a database."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.stack = Stack(folder, extra_env=CHATLEDGER_ENVIRONMENT, **options)
        Service.__init__(self, self.stack)


class _Baseline(_InAFolder):
    def __init__(self, *, workers: int | None = None, threads: int | None = None) -> None:
        super().__init__()
        self._asked = {"--workers": workers, "--threads": threads}
        self.url = ""

    def pids(self) -> dict[str, int]:
        master = self._child.pid
        workers = sorted(children_of(master))
        return {"gunicorn": master} | {f"gunicorn-{n}": pid for n, pid in enumerate(workers, 1)}

    def violations(self) -> list[str]:
        """Each balance is what was granted less what the messages cost, and not below 0."""
        found = []
        for user, tokens, messages in self._rows(
            "SELECT u.id, u.tokens, count(m.id) FROM baseline_user u"
            " LEFT JOIN baseline_message m ON m.user_id = u.id GROUP BY u.id, u.tokens"
        ):
            due = SIGNUP_TOKENS - MESSAGE_PRICE * messages
            if tokens != due or tokens < 0:
                found.append(f"user {user} has {tokens} tokens; {due} are due")
        return found

    def _rows(self, select: str) -> Sequence[tuple[Any, ...]]:
        raise NotImplementedError

    def _serve(self, folder: Path, database_url: str) -> None:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.baseline.app", "--port", str(port)]
        command += [
            part
            for name, value in self._asked.items()
            if value is not None
            for part in (name, str(value))
        ]
        env = clean_environment() | {"DATABASE_URL": database_url}
        env |= {"JWT_KEY": secrets.token_urlsafe(32), "SIGNUP_TOKENS": str(SIGNUP_TOKENS)}
        self._child = Child("gunicorn", command, env, folder / "gunicorn.log", PROJECT)
        self._exits.callback(self._child.stop)
        self._child.start()
        self.url = f"http://{LOOPBACK}:{port}"
        wait_until_ready(
            [self._child],
            lambda: bool(why_not_free(port)),
            timeout_seconds=START_SECONDS_MAX,
            what=self.url,
        )


class SqliteBaseline(_Baseline):
    name = "baseline on SQLite"

    def _start(self) -> None:
        folder = self._folder()
        self._file = folder / "baseline.sqlite3"
        self._serve(folder, f"sqlite:///{self._file}")

    def _rows(self, select: str) -> Sequence[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self._file}?mode=ro", uri=True)) as connection:
            return connection.execute(select).fetchall()


class PostgresBaseline(_Baseline):
    name = "baseline on PostgreSQL"

    def pids(self) -> dict[str, int]:
        return {"postgres": self._postgres.pid} | super().pids()

    def _start(self) -> None:
        folder = self._folder()
        self._postgres = Postgres(folder)
        self._exits.callback(self._postgres.stop)
        self._postgres.start()
        self._serve(folder, self._postgres.url)

    def _rows(self, select: str) -> Sequence[tuple[Any, ...]]:
        with psycopg.connect(self._postgres.url) as connection:
            return connection.execute(select).fetchall()


def memory_mib(pid: int) -> float:
    """What a process and all those below it hold of the memory, shared pages divided among them."""
    kib = 0
    for each in (pid, *descendants(pid)):
        lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        kib += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib * 1024 / MIB


def descendants(pid: int) -> Iterator[int]:
    for child in children_of(pid):
        yield child
        yield from descendants(child)


def children_of(pid: int) -> list[int]:
    """The processes that this one has started and that are there."""
    tasks = Path(f"/proc/{pid}/task")
    return [
        int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()
    ]
