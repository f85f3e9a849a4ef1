"""The bank test's saboteurs: one fault after the other, each mended before the next begins."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from signal import Signals

import redis

from devstack.model_scripts import Script, refuses
from devstack.model_server import ModelServer
from devstack.processes import DevstackError
from tests.faults.proxied import KINDS, ProxiedService
from tests.faults.proxy import Proxy

#: How often a process is started until what it needs is there.
STARTS_MAX = 60
START_PAUSE_SECONDS = 0.5
AWAY_SECONDS_MAX = 2.0
#: Longer than the leases and time-outs that tell the dead from the slow.
FROZEN_SECONDS_MAX = 12.0
SILENT_SECONDS_MAX = 4.0
DELAY_SECONDS_MAX = 0.2
TRAPS_MAX = 3
APPEND = "chatledger_append"


class Saboteur:
    """Causes one kind of faults; what it has done is counted by name."""

    def __init__(self, service: ProxiedService, dice: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._service = service
        self._stack = service.stack
        self._dice = dice

    def faults(self) -> dict[str, Callable[[], None]]:
        """What this one can do, by name."""
        raise NotImplementedError

    def work(self, stop: threading.Event, pause_seconds: float) -> None:
        """Cause faults until told to stop, this far apart; none is left behind."""
        faults = self.faults()
        while not stop.wait(self._dice.uniform(0, 2 * pause_seconds)):
            name = self._dice.choice(list(faults))
            faults[name]()
            self.done[name] += 1

    def _one_of(self, kind: str) -> str:
        return self._dice.choice([n for n in self._stack.processes if n.startswith(f"{kind}-")])

    def _away(self, seconds_max: float = AWAY_SECONDS_MAX) -> None:
        time.sleep(self._dice.uniform(0, seconds_max))


class Killer(Saboteur):
    """Ends and freezes the application's processes."""

    def faults(self) -> dict[str, Callable[[], None]]:
        killed = {f"{kind} killed": partial(self._killed, kind) for kind in KINDS}
        frozen = {f"{kind} frozen": partial(self._frozen, kind) for kind in KINDS}
        return {**killed, **frozen, "worker stopped": self._stopped}

    def _killed(self, kind: str) -> None:
        name = self._one_of(kind)
        self._stack.kill(name)
        self._away()
        self._start(name)

    def _frozen(self, kind: str) -> None:
        child = self._stack.processes[self._one_of(kind)]
        child.send(Signals.SIGSTOP)
        self._away(FROZEN_SECONDS_MAX)
        child.send(Signals.SIGCONT)

    def _stopped(self) -> None:
        name = self._one_of("worker")
        self._stack.processes[name].stop()
        self._start(name)

    def _start(self, name: str) -> None:
        for _ in range(STARTS_MAX):
            try:
                if not self._stack.processes[name].running:
                    self._stack.start(name)
            except DevstackError:
                # Another fault keeps it from starting, as it would any supervisor.
                time.sleep(START_PAUSE_SECONDS)
            else:
                return
        raise AssertionError(f"{name} did not start {STARTS_MAX} times")


class Wrecker(Saboteur):
    """Takes away what the processes need: PostgreSQL, Redis, the network, the model."""

    def __init__(self, service: ProxiedService, dice: random.Random, model: ModelServer) -> None:
        super().__init__(service, dice)
        self._model = model

    def faults(self) -> dict[str, Callable[[], None]]:
        return {
            "postgres crashed": self._postgres_crashed,
            "postgres cut off": partial(self._cut_off, self._service.postgres),
            "postgres silent": partial(self._silent, self._service.postgres),
            "postgres slow": partial(self._slow, self._service.postgres),
            "cut after commit": self._cut_after_commit,
            "redis crashed": self._redis_crashed,
            "redis flushed": self._redis_flushed,
            "redis cut off": partial(self._cut_off, self._service.redis),
            "redis silent": partial(self._silent, self._service.redis),
            "model refuses": self._model_refuses,
        }

    def _postgres_crashed(self) -> None:
        self._stack.postgres.stop(mode="immediate")
        self._away()
        self._stack.start("postgres")

    def _redis_crashed(self) -> None:
        self._stack.kill("redis")
        self._away()
        self._stack.start("redis")

    def _redis_flushed(self) -> None:
        with redis.Redis.from_url(self._stack.redis.url) as client:
            client.flushall()

    def _cut_off(self, proxies: Callable[[str], Proxy]) -> None:
        self._any(proxies).cut_all()

    def _silent(self, proxies: Callable[[str], Proxy]) -> None:
        proxy = self._any(proxies)
        proxy.blackhole()
        self._away(SILENT_SECONDS_MAX)
        proxy.pass_on()

    def _slow(self, proxies: Callable[[str], Proxy]) -> None:
        proxy = self._any(proxies)
        proxy.delay_seconds = self._dice.uniform(0, DELAY_SECONDS_MAX)
        self._away()
        proxy.delay_seconds = 0

    def _cut_after_commit(self) -> None:
        name = self._one_of(self._dice.choice(["web", "worker"]))
        times = self._dice.randint(1, TRAPS_MAX)
        trap = self._service.postgres(name).cut_when(APPEND, times=times)
        trap.wait(times, AWAY_SECONDS_MAX)
        trap.left = 0

    def _model_refuses(self) -> None:
        usual = self._model.default

        def refusing(_: str) -> Script:
            return refuses(500)

        self._model.default = refusing
        self._away()
        self._model.default = usual

    def _any(self, proxies: Callable[[str], Proxy]) -> Proxy:
        return proxies(self._one_of(self._dice.choice(KINDS)))
