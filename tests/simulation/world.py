"""The simulated world: processes, what they share, and what a client has been told.

An operation is what somebody does: a user, staff, a worker, a follower, time, or misfortune. What
it does is done by the code that is shipped; what must come of it is known from the ledger.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from django.conf import settings
from django.db import OperationalError

import eventstore.log
from conversations import responders
from conversations.broker import broker
from conversations.reply_streams import reply_streams
from eventstore.database import StoreUnavailable, guarded
from eventstore.domain import Refused
from eventstore.leases import get_leases
from eventstore.log import event_log
from eventstore.marker import appended
from eventstore.writer import SharedWriter
from projections import progress
from tests.isolation import carry_out_here
from tests.simulation.clock import Clock, simulated_time, the_same_ids
from tests.simulation.database import Databases
from tests.simulation.ledger import SELECT, Ledger
from tests.simulation.processes import Process
from tests.simulation.responder import Script, SimulatedResponder, Wait
from tests.simulation.seams import Command, Crash, Fate, Seams
from tests.simulation.services import Redis

R = TypeVar("R")

#: Processes: more than can be at work within each other's operations.
PROCESSES = 4
#: The tokens that a user begins with: some messages, so that many a send is refused.
SIGNUP_TOKENS = 500
FLAT_PRICE, USAGE_PRICES = 100, (10, 31)
#: 8000 * 10 / 1000 + 1024 * 31 / 1000, rounded up.
USAGE_PRICE = 112
#: How long each operation takes.
OPERATION_SECONDS = 0.01
#: Short, so that accounts here live to see one.
SNAPSHOT_EVERY = 8


class Violated(AssertionError):
    """Something that must hold does not."""


class NothingToDo(Exception):
    """There is nothing that the operation could be about: it is none."""


class World:
    """Everything there is, from an empty database on. One at a time: it stands in for modules."""

    def __init__(self, databases: Databases) -> None:
        self.clock = Clock()
        self.ledger = Ledger()
        self.seams = Seams(self.do_all)
        self.redis = Redis(self.seams)
        self.database = databases.renew()
        self.operations: dict[str, int] = {}
        self.answers: dict[str, int] = {}
        #: What a request was about, by its id; an event says which request it comes from.
        self.requests: dict[str, tuple[str, ...]] = {}
        self.script: Script = ()
        #: Whether nothing befalls the operation under way: then its answer is known beforehand.
        self.calm = True
        self._requested = 0
        self._errors = _Errors()
        #: Processes that are within an operation, the outermost first.
        self.at_work: list[Process] = []
        self._parts = ExitStack()
        self._parts.enter_context(simulated_time(self.clock))
        self._parts.enter_context(the_same_ids())
        self._parts.enter_context(self._stand_ins())
        self.processes = [Process(self.clock, self.redis) for _ in range(PROCESSES)]
        self.database.watch(self.seams, self._committed)

    def close(self) -> None:
        self.database.seams = self.database.committed = None
        self.database.execute_wrappers.clear()
        self._parts.close()

    # Operations by name: see `operations.py`.

    def do(self, command: Command, fate: Fate | None = None) -> None:
        """Let a process that is free do an operation, with what befalls it."""
        from tests.simulation.operations import OPERATIONS

        free = [each for each in self.processes if each not in self.at_work]
        if not free:
            return
        process = free[command.a % len(free)]
        self.clock.advance(OPERATION_SECONDS)
        self.at_work.append(process)
        outer, self.calm = self.calm, fate is None
        try:
            with process.running(), self.seams.fated(fate):
                OPERATIONS[command.name](self, command.a, command.b)
        except NothingToDo:
            return
        except Crash:
            process.start()
        except (OperationalError, StoreUnavailable):
            # As the loop of a follower takes it: again, at the next time.
            if fate is None:
                raise
        finally:
            self.at_work.remove(process)
            self.calm = outer
        self.operations[command.name] = self.operations.get(command.name, 0) + 1
        self.check()

    def do_all(self, commands: tuple[Command, ...]) -> None:
        """What others do while an operation is under way."""
        with self.seams.fated(None):
            for command in commands:
                self.do(command)

    @property
    def process(self) -> Process:
        """The process that is at work."""
        return self.at_work[-1]

    def request(self, *about: str) -> str:
        """The id of a new request."""
        self._requested += 1
        request_id = f"r{self._requested}"
        self.requests[request_id] = about
        return request_id

    def ask(self, function: Callable[..., R], *args: Any, **kwargs: Any) -> R | Exception:
        """What a request is answered: a result, a refusal, or `StoreUnavailable` for a 503."""
        try:
            answer: R | Exception = guarded(function, *args, **kwargs)
        except (Refused, StoreUnavailable) as error:
            answer = error
        name = f"{function.__name__} {type(answer).__name__}"
        self.answers[name] = self.answers.get(name, 0) + 1
        return answer

    def must(self, holds: object, guarantee: int, what: Callable[[], str] | str) -> None:
        """Note a violation unless it holds."""
        if not holds:
            said = what if isinstance(what, str) else what()
            self.ledger.violations.append(f"{guarantee}: {said} (position {self.ledger.position})")

    def check(self) -> None:
        """Raise what has been noted."""
        if self.ledger.violations:
            raise Violated("; ".join(self.ledger.violations))
        if self._errors.found:
            raise Violated(f"unexpected: {self._errors.found[0]}")

    def pass_time(self, seconds: float) -> None:
        """Let time pass for everybody."""
        self.clock.advance(seconds)
        with self.seams.fated(None):
            for process in self.processes:
                process.time_passes()

    def make_responder(self) -> SimulatedResponder:
        return SimulatedResponder(self.script, self._wait, self.do_all)

    def _wait(self, line: Wait) -> None:
        process = self.process
        process.stalled = line.stalled
        self.pass_time(line.seconds)
        process.stalled = False

    def _committed(self, connection: Any) -> None:
        rows = connection.execute(SELECT, [self.ledger.position]).fetchall()
        if rows:
            self.ledger.take(rows)

    @contextmanager
    def _stand_ins(self) -> Iterator[None]:
        usual = {
            "SIGNUP_TOKENS": SIGNUP_TOKENS,
            "MESSAGE_PRICE": FLAT_PRICE,
            "PROMPT_PRICE_PER_1000": USAGE_PRICES[0],
            "COMPLETION_PRICE_PER_1000": USAGE_PRICES[1],
            "PRICING": "message",
            "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
            "RESPONDER": "simulated",
        }
        before = {name: getattr(settings, name) for name in usual}
        made = get_leases._made, reply_streams._made, event_log._made
        submit, snapshot_every = SharedWriter.submit, eventstore.log.SNAPSHOT_EVERY
        for name, value in usual.items():
            setattr(settings, name, value)
        get_leases._made = [self.redis.leases]
        reply_streams._made = [self.redis.streams]
        SharedWriter.submit = carry_out_here  # type: ignore[method-assign]  # ours, in this thread
        eventstore.log.SNAPSHOT_EVERY = SNAPSHOT_EVERY
        broker.enqueue = self.redis.broker.enqueue  # type: ignore[method-assign]  # ours
        responders.registered["simulated"] = self.make_responder
        progress.forget()
        appended._value = 0
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        root.handlers[:] = [self._errors]
        root.setLevel(logging.ERROR)
        try:
            yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            for name, value in before.items():
                setattr(settings, name, value)
            get_leases._made, reply_streams._made, event_log._made = made
            SharedWriter.submit = submit  # type: ignore[method-assign]
            eventstore.log.SNAPSHOT_EVERY = snapshot_every
            del broker.enqueue
            responders.registered.clear()
            progress.forget()
            appended._value = 0


class _Errors(logging.Handler):
    """Errors that the code under test logs and goes on after, but for those that were made here."""

    #: What a disturbance looks like to whoever is disturbed, and what scripts raise.
    EXPECTED = (OperationalError, StoreUnavailable, ConnectionError)

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, self.EXPECTED) and "the script says so" not in str(error):
            self.found.append(f"{record.getMessage()}: {error!r}")
