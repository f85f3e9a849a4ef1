"""Chatledger beside the baseline, and beside itself: what `benchmarks.bench` measures of speed.

Both contenders of a scenario run all the time, and take their turns round by round (A B A B), so
that what the machine does meanwhile happens to both. A turn that sees any failure ends the run, and
so does an invariant that does not hold of what was written.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.contenders import (
    Contender,
    EmbeddedChatledger,
    FullChatledger,
    PostgresBaseline,
    SqliteBaseline,
)
from benchmarks.load import Load, Measured
from benchmarks.table import Row, at_least, at_most, reported

#: Whoever sends, in a whole run and in a quick one: a user costs two hashes of a password.
USERS = {False: 64, True: 16}
MESSAGE = '{"message": "hello"}'
WARM_UP_SECONDS = 2.0


class Failed(Exception):
    """A run that no figure may be made of: requests failed, or what was written is wrong."""


@dataclass(frozen=True)
class Turn:
    """What one contender does in each round."""

    contender: Contender
    load: Load
    clients: int

    def run(self, seconds: float) -> Measured:
        measured = self.load.run(self.contender.url, self.clients, seconds)
        if measured.failures:
            raise Failed(f"{self.contender.name}, {self.load.path}: {measured.failures}")
        return measured


def full_against_postgres(options: argparse.Namespace) -> list[Row]:
    """Sends, reads and a single client: the full stack against the baseline on PostgreSQL.

    And against itself: a hot account.
    """
    with FullChatledger() as contender, PostgresBaseline() as other:
        ours, baseline = (_Entrant(each, USERS[options.quick]) for each in (contender, other))
        rows = _sends_and_reads(options, ours, baseline, asked_sends=0.8, asked_reads=1.5)
        rows += _one_client(options, ours, baseline)
        rows += _hot_account(options, ours)
        _check(contender, other)
    return rows


def embedded_against_sqlite(options: argparse.Namespace) -> list[Row]:
    """Sends and reads: the embedded profile against the baseline on SQLite."""
    with EmbeddedChatledger() as contender, SqliteBaseline() as other:
        ours, baseline = (_Entrant(each, USERS[options.quick]) for each in (contender, other))
        rows = _sends_and_reads(options, ours, baseline, asked_sends=1.0, asked_reads=1.0)
        _check(contender, other)
    return rows


def in_turn(options: argparse.Namespace, *turns: Turn) -> list[list[Measured]]:
    """Warm each up, then let each run once a round; what each measured in its rounds."""
    for turn in turns:
        turn.run(min(WARM_UP_SECONDS, options.seconds))
    found: list[list[Measured]] = [[] for _ in turns]
    for _ in range(options.rounds):
        for turn, of_turn in zip(turns, found, strict=True):
            of_turn.append(turn.run(options.seconds))
    return found


class _Entrant:
    """A contender and its users."""

    def __init__(self, contender: Contender, users: int) -> None:
        self.name = contender.name
        self._contender = contender
        self._jwts = contender.jwts(users)

    def sends(self, clients: int, *, users: int | None = None) -> Turn:
        load = Load("POST", "/send/", MESSAGE, self._jwts[:users])
        return Turn(self._contender, load, clients)

    def reads(self, clients: int) -> Turn:
        return Turn(self._contender, Load("GET", "/token/", "", self._jwts), clients)


def _sends_and_reads(
    options: argparse.Namespace,
    ours: _Entrant,
    baseline: _Entrant,
    *,
    asked_sends: float,
    asked_reads: float,
) -> list[Row]:
    """Make a row for each load; the name says who is against whom."""
    what = ours.name
    rows = []
    for clients in (16, 64):
        a, b = in_turn(options, ours.sends(clients), baseline.sends(clients))
        name = f"{what}: sends/s, {clients} clients"
        rows.append(at_least(name, _rates(a), _rates(b), asked_sends, unit="/s"))
        rows.append(reported(f"{what}: p99 of these sends", _p99s(a), _p99s(b), unit="ms"))
    a, b = in_turn(options, ours.reads(16), baseline.reads(16))
    name = f"{what}: balance reads/s, 16 clients"
    rows.append(at_least(name, _rates(a), _rates(b), asked_reads, unit="/s"))
    return rows


def _one_client(options: argparse.Namespace, ours: _Entrant, baseline: _Entrant) -> list[Row]:
    """One client that sends, waits for the response, and sends again."""
    a, b = in_turn(options, ours.sends(1, users=1), baseline.sends(1, users=1))
    medians = [[each.p50_ms for each in measured] for measured in (a, b)]
    return [
        at_most(f"{ours.name}: one client, median", medians[0], medians[1], 3, unit="ms"),
        at_most(f"{ours.name}: one client, p99", _p99s(a), _p99s(b), 5, unit="ms"),
    ]


def _hot_account(options: argparse.Namespace, ours: _Entrant) -> list[Row]:
    """16 clients on one account against as many on all accounts."""
    a, b = in_turn(options, ours.sends(16, users=1), ours.sends(16))
    name = f"sends/s to one account, against {USERS[options.quick]}"
    return [
        at_least(name, _rates(a), _rates(b), 0.5, unit="/s"),
        reported("their p99", _p99s(a), _p99s(b), unit="ms"),
    ]


def _check(*contenders: Contender) -> None:
    for each in contenders:
        if violations := each.violations():
            raise Failed(f"{each.name}: {violations}")


def _rates(measured: Sequence[Measured]) -> list[float]:
    return [each.rate for each in measured]


def _p99s(measured: Sequence[Measured]) -> list[float]:
    return [each.p99_ms for each in measured]
