"""The clock of one host is an hour off, or goes back: every message ends, none too early (7, 13).

The log is stamped by the database's clock alone, so hosts are tried one wrong way each at the same
time; then the database's own clock is set back and right again, and that of an embedded service.
"""

import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from devstack.application import COMMANDS
from devstack.model_scripts import MODEL, TALE, hangs, says
from devstack.model_server import ModelServer
from devstack.stack import Stack
from tests.faults.checker import check
from tests.faults.counts import count
from tests.stack.client import User
from tests.stack.ledger_check import Ledger
from tests.stack.services import REST_SECONDS, EmbeddedService, FullService, Service, wait_for

SetClock = Callable[[int], object]

HOUR_SECONDS = 3600
SENDS = count(short=24, full=400)
#: Few enough that each can pay for one more.
MESSAGES_A_USER = 30
CLIENTS = 8
DEADLINE_SECONDS = 8
SWEEP_SECONDS_MAX = 4.0
PIECE_SECONDS = 0.1


class Clock:
    """What a process's clock is wrong by, in a file that it reads."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.set(0)

    def set(self, seconds: int) -> None:
        # Whole or not at all: it is read all the time.
        unfinished = self.file.with_suffix(".new")
        unfinished.write_text(str(seconds))
        unfinished.rename(self.file)

    def command(self, command: list[str]) -> list[str]:
        """The command of a process that has this clock."""
        python, manage, *arguments = command
        assert manage == "manage.py"
        return [python, "-m", "tests.faults.clock_off", str(self.file), *arguments]


class WrongDatabaseStack(Stack):
    """A full stack whose PostgreSQL says another time when it is told to."""

    def _start_services(self) -> None:
        super()._start_services()
        with psycopg.connect(self.postgres.url, autocommit=True) as database:
            database.execute("CREATE TABLE wrong_clock AS SELECT interval '0' AS wrong_by")
            # Found before the function of that name that everybody uses.
            database.execute("ALTER DATABASE chatledger SET search_path = public, pg_catalog")
            database.execute(
                "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz VOLATILE LANGUAGE sql"
                " AS 'SELECT pg_catalog.clock_timestamp() + wrong_by FROM public.wrong_clock'"
            )

    def set_clock(self, seconds: int) -> None:
        """Set it wrong by so much."""
        with psycopg.connect(self.postgres.url, autocommit=True) as database:
            database.execute(
                "UPDATE wrong_clock SET wrong_by = make_interval(secs => %s)", [seconds]
            )


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        server.default = says(*TALE, every_seconds=PIECE_SECONDS)
        server.scripts["hang"] = hangs(after=2)
        yield server


@pytest.fixture
def env(model: ModelServer) -> dict[str, str]:
    return {
        "RESPONDER": "openai",
        "OPENAI_BASE_URL": model.url,
        "OPENAI_MODEL": MODEL,
        "RESPONSE_DEADLINE_SECONDS": str(DEADLINE_SECONDS),
    }


def send_all(users: list[User], number: int) -> set[str]:
    """Send in parallel; the ids of the messages, which are pending for a while."""

    def send(nth: int) -> str:
        answer = users[nth % len(users)].send(f"hello {nth}", prefer="respond-async")
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    with ThreadPoolExecutor(CLIENTS) as clients:
        return set(clients.map(send, range(number)))


def some_users(service: Service) -> list[User]:
    return [service.user(f"timeless-{n}") for n in range(-(-SENDS // MESSAGES_A_USER))]


def all_done(ledger: Ledger, messages: set[str]) -> bool:
    return {ledger.end_of(each).kind for each in messages} == {"ResponseGenerated"}


def test_hosts_whose_clocks_are_an_hour_off_change_nothing(
    tmp_path: Path, env: dict[str, str]
) -> None:
    clocks = {kind: Clock(tmp_path / f"{kind}.clock") for kind in ("web", "worker", "followers")}
    late = Clock(tmp_path / "late.clock")
    for kind, sign in (("web", 1), ("worker", 1), ("followers", -1)):
        clocks[kind].set(sign * HOUR_SECONDS)
    late.set(-HOUR_SECONDS)
    commands = {kind: clock.command(COMMANDS[kind]) for kind, clock in clocks.items()}
    with FullService(tmp_path / "stack", workers=2, commands=commands, extra_env=env) as full:
        worker = full.stack.processes["worker-2"]
        worker.stop()
        worker.command = late.command(COMMANDS["worker"])
        full.stack.start("worker-2")
        began = time.time()
        users = some_users(full)
        issued_at = json.loads(urlsafe_b64decode(users[0].jwt.split(".")[1] + "=="))["iat"]
        assert issued_at > began + HOUR_SECONDS / 2
        messages = send_all(users, SENDS)
        hung = users[0].send("hang", prefer="respond-async").json()["id"]
        ledger = check(full)
        assert all_done(ledger, messages)
        check_deadline(ledger, hung)
        # What the log says is the database's time, which nobody has set.
        assert all(began - 60 < line.at / 1e6 <= time.time() for line in ledger.lines)
        assert users[0].get("/token/").status_code == 200


def test_a_database_whose_clock_is_set_back_and_right_again_fails_nothing_early(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with FullService(
        tmp_path / "stack", stack=WrongDatabaseStack, like=None, extra_env=env
    ) as full:
        assert isinstance(full.stack, WrongDatabaseStack)
        worker = full.stack.processes["worker-1"]
        go_back_and_forth(full, full.stack.set_clock, stop_work=worker.stop, go_on=worker.start)


def test_an_embedded_service_whose_clock_is_set_back_and_right_again_fails_nothing_early(
    tmp_path: Path, env: dict[str, str]
) -> None:
    clock = Clock(tmp_path / "clock")
    service = EmbeddedService(tmp_path / "service", **env)
    service.process.child.command = clock.command(service.process.child.command)
    with service:
        go_back_and_forth(service, clock.set)


def go_back_and_forth(
    service: Service,
    set_clock: SetClock,
    *,
    stop_work: Callable[[], object] = lambda: None,
    go_on: Callable[[], object] = lambda: None,
) -> None:
    """Set the clock back while messages are pending, and right when all has ended."""
    patience_seconds = DEADLINE_SECONDS + SWEEP_SECONDS_MAX
    users = some_users(service)
    messages = send_all(users, SENDS // 4)
    with wrong(set_clock, -HOUR_SECONDS):
        stands_at = service.ledger().lines[-1].at
        messages |= send_all(users, SENDS // 4)
        wait_for(lambda: not service.ledger().pending, REST_SECONDS, "every message to end")
        stop_work()
        hung = users[0].send("hang", prefer="respond-async").json()["id"]
        # The log's time stands still: without a worker it is the sweeper's patience that ends it.
        wait_for(lambda: not service.ledger().pending, patience_seconds, "the last one to end")
        go_on()
        ledger = check(service)
        assert ledger.lines[-1].at < stands_at + 1_000_000
        assert ledger.end_of(hung).data["reason"] == "deadline"
        assert all_done(ledger, messages)
    messages |= send_all(users, SENDS // 2)
    assert all_done(check(service), messages)


@contextmanager
def wrong(set_clock: SetClock, seconds: int) -> Iterator[None]:
    set_clock(seconds)
    yield
    set_clock(0)


def check_deadline(ledger: Ledger, message_id: str) -> None:
    """It failed at its deadline: not before, and not long after."""
    (sent,) = [line for line in ledger.of("MessageSent") if line.stream == message_id]
    end = ledger.end_of(message_id)
    assert (end.kind, end.data["reason"]) == ("ResponseFailed", "deadline")
    seconds = (end.at - sent.at) / 1e6
    assert DEADLINE_SECONDS <= seconds < DEADLINE_SECONDS + SWEEP_SECONDS_MAX
