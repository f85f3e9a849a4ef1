"""The disk is full: 5xx, nothing half-written, reads go on, and so do writes when there is room."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psycopg
import pytest

from devstack.postgres_install import home_for
from tests.faults.checker import check
from tests.faults.counts import count
from tests.faults.journal import Journal
from tests.faults.small_disks import Disk, Limit, may_mount, tmpfs, with_children
from tests.figures import Figure
from tests.stack.client import OPTIONS, PASSWORD, User
from tests.stack.services import EmbeddedService, FullService, Service, wait_for

MEBIBYTE = 1024 * 1024
SQLITE_BYTES = 24 * MEBIBYTE
#: An empty cluster has some 60, and its log of writes takes 16 at a time.
POSTGRES_BYTES = 160 * MEBIBYTE
SENDS = count(short=40, full=400)
#: A message that pages which are there already have no room for.
TEXT = "x" * 4_000
ROUNDS = count(short=1, full=10)
REFUSED_SECONDS_MAX = 3.0
SERVICE_SECONDS_MAX = 10.0
WAL_SWITCHES_MAX = 20


@pytest.fixture(params=["a limit", "a tmpfs"] if may_mount() else ["a limit"])
def embedded(request: pytest.FixtureRequest) -> Iterator[tuple[EmbeddedService, Disk]]:
    """An embedded service on a disk of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="chatledger-")))
        disk: Disk | None = None
        if request.param == "a tmpfs":
            disk = stack.enter_context(tmpfs(folder, SQLITE_BYTES))
        service = stack.enter_context(EmbeddedService(folder))
        yield service, disk or Limit(lambda: [service.process.pid])


@pytest.fixture
def full() -> Iterator[tuple[FullService, Disk]]:
    """A full stack whose PostgreSQL has a disk of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="chatledger-"))) / "stack"
        folder.mkdir()
        disk: Disk | None = None
        if may_mount():
            disk = stack.enter_context(tmpfs(home_for(folder.resolve()), POSTGRES_BYTES))
        service = stack.enter_context(FullService(folder))
        yield service, disk or Limit(lambda: with_children(service.stack.postgres.pid))


def test_a_full_disk_under_sqlite_refuses_writes_and_nothing_else(
    embedded: tuple[EmbeddedService, Disk], figure: Figure
) -> None:
    service, disk = embedded
    journal, user = Journal(), service.user("alice")
    for number in range(ROUNDS):
        tokens = user.tokens()
        assert journal.send(user, "hello", f"before-{number}").accepted
        disk.fill()
        try:
            seconds = refuse_sends(journal, user, number)
            # What is read needs no room.
            assert user.tokens() <= tokens - 100
            assert user.get("/conversations/").status_code == 200
            refuse_registration(service, f"bob-{number}")
        finally:
            disk.make_room()
        figure("seconds of a refusal", seconds)
        assert journal.send(user, "hello", f"after-{number}").accepted
    service.user("bob-0")
    check(service, journal)


def test_a_full_disk_under_postgres_refuses_writes_until_there_is_room(
    full: tuple[FullService, Disk], figure: Figure
) -> None:
    service, disk = full
    journal, user = Journal(), service.user("alice")
    assert journal.send(user, "hello", "before").accepted
    disk.fill()
    try:
        figure("seconds of a refusal", refuse_sends(journal, user, 1))
        refuse_registration(service, "bob")
    finally:
        disk.make_room()
    go_on(service, journal, user, "room", figure)

    # Once more, and so that its log of writes has no room either: it gives up and has to be started
    # again, as whoever runs it does.
    disk.fill()
    try:
        exhaust(service)
        figure("seconds of a refusal", refuse_sends(journal, user, 2))
    finally:
        disk.make_room()
    if not service.stack.postgres.child.running:
        service.stack.start("postgres")
    go_on(service, journal, user, "room-again", figure)
    service.user("bob")
    check(service, journal)


def refuse_sends(journal: Journal, user: User, number: int) -> list[float]:
    """Send on a full disk; how long each refusal took. Some find room on a page that is there."""
    seconds, refused = [], 0
    for nth in range(SENDS):
        began = time.monotonic()
        entry = journal.send(user, TEXT, f"full-{number}-{nth}", prefer="respond-async")
        if entry.status == 503:
            refused += 1
            seconds.append(time.monotonic() - began)
        else:
            assert entry.accepted or entry.status == 402, entry
        if refused == SENDS // 4:
            break
    assert refused == SENDS // 4
    assert max(seconds) < REFUSED_SECONDS_MAX
    return seconds


def refuse_registration(service: Service, name: str) -> None:
    credentials = {"username": name, "password": PASSWORD}
    answer = httpx.post(f"{service.url}/users/register/", json=credentials, **OPTIONS)
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def go_on(service: Service, journal: Journal, user: User, key: str, figure: Figure) -> None:
    """Serve again soon, without a restart of anything of ours."""
    began = time.monotonic()
    tries = iter(range(10_000))
    wait_for(
        lambda: journal.send(user, "hello", f"{key}-{next(tries)}", prefer="wait=5").accepted,
        SERVICE_SECONDS_MAX,
        "service when there is room",
    )
    figure("seconds to service when there is room", [time.monotonic() - began])


def exhaust(service: FullService) -> None:
    """Have PostgreSQL begin new files of its log of writes until it cannot."""
    with suppress(psycopg.OperationalError):
        for _ in range(WAL_SWITCHES_MAX):
            with psycopg.connect(service.stack.postgres.url, autocommit=True) as database:
                database.execute("SELECT pg_logical_emit_message(true, 'fill', 'x')")
                database.execute("SELECT pg_switch_wal()")
    wait_for(
        lambda: "PANIC" in service.stack.postgres.log_file.read_text(), 10, "PostgreSQL to panic"
    )
