"""Whether a request gets slower as things grow: a conversation, the log, the list of users.

    python -m benchmarks.sizes [--quick] [--profile full|embedded] [conversations log users …]

For each, something large is measured against something small: one client, back to back, one request
of each in turn, so that both meet the same machine; a median a round. The large and the small
conversation are two users' of one service; logs and lists of users are two services that are alive
at once. Everything is filled beforehand (`fills`), read models, snapshots and seals included. At
the end the invariants are checked.
"""

import argparse
import http
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.caller import PASSWORD, Caller
from benchmarks.contenders import CHATLEDGER_ENVIRONMENT
from benchmarks.fills import fill
from benchmarks.table import Row, at_most, head, line, reported
from tests.stack.ledger_check import SELECT, Ledger
from tests.stack.services import EmbeddedService, FullService

Service = EmbeddedService | FullService
Request = Callable[[Caller], None]

ASKED_SEND_RATIO, ASKED_USERS_RATIO = 1.1, 1.2
#: Large against small, in a whole run and in a quick one.
MESSAGES = {False: (20_000, 20), True: (5_000, 20)}
EVENTS = {False: (1_000_000, 1_000), True: (20_000, 1_000)}
USERS = {False: (100_000, 100), True: (3_000, 100)}
ROUNDS, SAMPLES = {False: 9, True: 5}, {False: 100, True: 40}
WARM_UP_REQUESTS = 60
#: Unless another one is asked for.
PROFILE = {False: "full", True: "embedded"}
PAGE_USERS = 100
#: A comparison with a fresh replay of a longer log takes longer than all that is measured here.
COMPARED_EVENTS_MAX = 350_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizes")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--profile", choices=["full", "embedded"], default="")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SCENARIOS))
    options = parser.parse_args()
    print(head())
    held = True
    for name in options.names or SCENARIOS:
        for row in SCENARIOS[name](options, options.profile):
            print(f"{line(row)}  {row.note}".rstrip(), flush=True)
            held &= row.held
    return 0 if held else 1


def conversations(options: argparse.Namespace, profile: str = "") -> list[Row]:
    """A send of a user who has sent much in one conversation against one who has not."""
    profile = profile or PROFILE[options.quick]
    large, small = MESSAGES[options.quick]
    with tempfile.TemporaryDirectory(prefix="chatledger-") as folder:
        fill(profile, Path(folder), "conversations", small, large)
        with serving(profile, Path(folder)) as service:
            callers = [logged_in(service.url, f"sender-{count}") for count in (large, small)]
            a, b = in_turns(send, callers, quick=options.quick)
            name = f"send: {large:,} messages against {small:,}, {profile}"
            row = at_most(name, a, b, ASKED_SEND_RATIO, unit="ms")
            return [judged(row, violations(service))]


def log(options: argparse.Namespace, profile: str = "") -> list[Row]:
    """A send where the log is long against one where it is short; the replay of the long one."""
    profile = profile or PROFILE[options.quick]
    large, small = EVENTS[options.quick]
    with beside("log", profile, large, small) as (services, filled):
        callers = senders(services, large, small)
        a, b = in_turns(send, callers, quick=options.quick)
        name = f"send: {large:,} events against {small:,}, {profile}"
        row = at_most(name, a, b, ASKED_SEND_RATIO, unit="ms")
        found = [
            violation
            for service, said in zip(services, filled, strict=True)
            for violation in violations(service, behind=said["story_ends_at"])
        ]
    replayed = filled[0]["replayed_a_second"]
    replay = reported(
        f"replay of {large:,} events, {profile}",
        [replayed],
        unit="events/s",
        note="six read models, into a database without rows",
    )
    return [judged(row, found), replay]


def users(options: argparse.Namespace, profile: str = "") -> list[Row]:
    """The first page of all users where there are many against one where there are few."""
    profile = profile or PROFILE[options.quick]
    large, small = USERS[options.quick]
    with beside("users", profile, large, small) as (services, _):
        callers = senders(services, large, small)
        a, b = in_turns(read_users, callers, quick=options.quick)
        name = f"page of users: {large:,} against {small:,}, {profile}"
        row = at_most(name, a, b, ASKED_USERS_RATIO, unit="ms")
        found = [violation for service in services for violation in violations(service)]
    return [judged(row, found)]


SCENARIOS: dict[str, Callable[..., list[Row]]] = {
    each.__name__: each for each in (conversations, log, users)
}


@contextmanager
def beside(
    what: str, profile: str, *counts: int
) -> Iterator[tuple[list[Service], list[dict[str, Any]]]]:
    """Services that are alive at once, each on a fill of its own, and what the fills said."""
    with ExitStack() as exits:
        folders = [
            Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="chatledger-")))
            for _ in counts
        ]
        filled = [
            fill(profile, folder, what, count)
            for folder, count in zip(folders, counts, strict=True)
        ]
        services = [serving(profile, folder) for folder in folders]
        for service in services:
            exits.enter_context(service)
        yield services, filled


def serving(profile: str, folder: Path) -> Service:
    """A profile on the database that a folder holds already."""
    if profile == "embedded":
        return EmbeddedService(folder, **CHATLEDGER_ENVIRONMENT)
    return FullService(folder, extra_env=CHATLEDGER_ENVIRONMENT, like=None)


def logged_in(url: str, name: str) -> Caller:
    """A client of a user who is registered already."""
    caller = Caller(url, name)
    credentials = {"username": name, "password": PASSWORD}
    status, answer = caller.call("POST", "/users/login/", credentials)
    assert status == http.HTTPStatus.OK, answer
    caller.jwt = answer["token"]
    return caller


def senders(services: Sequence[Service], *counts: int) -> list[Caller]:
    """The user of each service that its fill is about."""
    return [
        logged_in(service.url, f"sender-{count}")
        for service, count in zip(services, counts, strict=True)
    ]


def send(caller: Caller) -> None:
    status = caller.send()
    assert status == http.HTTPStatus.CREATED, status


def read_users(caller: Caller) -> None:
    status, page = caller.call("GET", "/users/")
    assert status == http.HTTPStatus.OK, page
    assert len(page) == PAGE_USERS, len(page)


def in_turns(
    request: Request, callers: Sequence[Caller], *, quick: bool
) -> tuple[list[float], ...]:
    """For each of the callers the median of each of its rounds, in milliseconds."""
    for caller in callers:
        for _ in range(WARM_UP_REQUESTS):
            request(caller)
    rounds = [round_of(request, callers, SAMPLES[quick]) for _ in range(ROUNDS[quick])]
    return tuple([medians[number] for medians in rounds] for number in range(len(callers)))


def round_of(request: Request, callers: Sequence[Caller], samples: int) -> list[float]:
    """The median of so many requests of each caller, in milliseconds."""
    took: list[list[float]] = [[] for _ in callers]
    turns = list(zip(callers, took, strict=True))
    for _ in range(samples):
        for caller, seconds in turns:
            began = time.perf_counter()
            request(caller)
            seconds.append(time.perf_counter() - began)
        # What one leaves to be done behind its answer shall not always meet the same other.
        turns.reverse()
    return [statistics.median(seconds) * 1000 for seconds in took]


def judged(row: Row, found: Sequence[str]) -> Row:
    """The row; one that does not hold when an invariant was violated, and says which."""
    if not found:
        return row
    return replace(row, held=False, note=f"{row.note} {len(found)} violations: {found[0]}".strip())


def violations(service: Service, *, behind: int = 0) -> list[str]:
    """What the log behind a position, and the read models, break of the invariants at rest.

    Up to that position stands a story with the sizes of a log, but not its balances and times. Read
    models of a log that is longer than the comparison can take are left out.
    """
    rows = events_behind(service, behind)
    found = Ledger([(position - behind, *rest) for position, *rest in rows]).violations()
    if behind + len(rows) <= COMPARED_EVENTS_MAX:
        compared = service.run("-m", "tests.stack.compare_read_models")
        if compared.returncode:
            found += compared.stdout.splitlines() or compared.stderr.splitlines()[-1:]
    return found


def events_behind(service: Service, position: int) -> list[tuple[Any, ...]]:
    """The log behind a position, by plain SQL."""
    sql = SELECT.replace(" ORDER BY", f" WHERE position > {position} ORDER BY")
    if isinstance(service, FullService):
        with psycopg.connect(service.stack.postgres.url) as postgres:
            return postgres.execute(sql).fetchall()
    file = service.process.folder / "chatledger.sqlite3"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as sqlite:
        return sqlite.execute(sql).fetchall()


if __name__ == "__main__":
    sys.exit(main())
