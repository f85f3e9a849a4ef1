"""Start and stop what runs beside the requests: the listener, the worker and the followers."""

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Protocol

from django.conf import settings

logger = logging.getLogger(__name__)

#: How long the followers may take to end, and how long all parts of a process together, web
#: processes apart, which have answered for some seconds before.
STOP_TIMEOUT_SECONDS = 5.0
PARTS_STOP_SECONDS = 8.0
#: How long the interpreter may then wait for threads whose work nobody waits for.
LEAVE_SECONDS = 0.5
#: How many objects more than before there are when the collector looks among the youngest: so many
#: come and go with a few dozen requests at once, of which it would find none.
COLLECT_AFTER_OBJECTS = 10_000


class Stoppable(Protocol):
    """Something that runs in threads of its own until it is stopped."""

    def stop(self) -> None:
        """Stop it and return when it has ended, or when the time for that is over."""


def serve_metrics() -> Stoppable:
    """Tell Prometheus what this process counts, if a port is set for that."""
    if not settings.METRICS_PORT:
        return _Callback(lambda: None)
    from config.metrics.server import MetricsServer

    return MetricsServer(settings.METRICS_HOST, settings.METRICS_PORT)


def serve_metrics_and_state() -> Stoppable:
    """The same, and how the log, its followers and the broker stand."""
    if not settings.METRICS_PORT:
        return _Callback(lambda: None)
    from config.metrics.server import MetricsServer
    from config.metrics.state import State

    return MetricsServer(settings.METRICS_HOST, settings.METRICS_PORT, State())


def hear_the_read_models() -> Stoppable:
    """Hear from other processes what the read models show, and which keys were destroyed."""
    from eventstore import keys, notifications
    from projections.positions import PROJECTED_CHANNEL

    notifications.start(PROJECTED_CHANNEL, keys.DESTROYED_CHANNEL)
    return _Callback(notifications.stop)


def start_worker() -> Stoppable:
    """Generate responses in this process."""
    from conversations import worker

    if settings.RESPONDER == "openai":
        threading.Thread(target=_probe_upstream, name="probe", daemon=True).start()
    return worker.start_worker(settings.WORKER_THREADS)


def _probe_upstream() -> None:
    from conversations.responders.openai import probe

    probe()


def start_followers() -> Stoppable:
    """Keep at the end of the log whatever follows it."""
    from conversations.sweeper import Sweeper
    from eventstore import followers
    from eventstore.marker import appended
    from eventstore.notifications import AppendsHeard
    from eventstore.seals.sealer import Sealer
    from privacy.destructions import Destructions
    from projections.rebuilder import Rebuilder
    from projections.runner import ProjectionRunner

    stop = threading.Event()
    everywhere: list[followers.Follower] = []
    if settings.METRICS_PORT:
        from config.metrics.meter import Meter

        everywhere.append(Meter())
    threads = followers.run(
        [ProjectionRunner()],
        stop,
        appends=appended if settings.EMBEDDED else AppendsHeard(),
        by_the_clock=[Rebuilder(), Sweeper(), Sealer(), Destructions()],
        everywhere=everywhere,
    )

    def join() -> None:
        stop.set()
        _join(threads, STOP_TIMEOUT_SECONDS)

    return _Callback(join)


WEB = (serve_metrics, hear_the_read_models)
WORKER = (serve_metrics, start_worker)
FOLLOWERS = (serve_metrics_and_state, start_followers)
EVERYTHING = (serve_metrics_and_state, hear_the_read_models, start_worker, start_followers)


def web_parts() -> tuple[Callable[[], Stoppable], ...]:
    """Return what a web process runs: in the embedded profile it is the only process."""
    return EVERYTHING if settings.EMBEDDED else WEB


class Runtime:
    """The running parts of one process."""

    def __init__(self) -> None:
        self._parts: list[Stoppable] = []

    def start(self, parts: tuple[Callable[[], Stoppable], ...]) -> None:
        """Start all the parts, or none."""
        try:
            for start in parts:
                self._parts.append(start())
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> None:
        """Stop all of them at once, and wait for no longer than this for all together.

        What waits for a database that says nothing does not end: `leave` does without it.
        """
        parts, self._parts = self._parts, []
        threads = [threading.Thread(target=_stop, args=(part,), daemon=True) for part in parts]
        for thread in threads:
            thread.start()
        _join(threads, timeout_seconds)


def _stop(part: Stoppable) -> None:
    try:
        part.stop()
    except Exception:
        logger.exception("a part of this process could not be stopped")


def _join(threads: Iterable[threading.Thread], timeout_seconds: float) -> None:
    """Wait until the threads have ended, but no longer than this for all together."""
    deadline = time.monotonic() + timeout_seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def leave() -> None:
    """Let this process end soon, although Python waits for threads before it ends.

    To be called when all is done: a thread that still waits for a database does it for nobody.
    """
    leaving = threading.Timer(LEAVE_SECONDS, _leave_now)
    leaving.daemon = True
    leaving.start()


def _leave_now() -> None:
    logger.info("leaving threads behind that have not ended")
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def spare_the_collector() -> None:
    """Keep what a process has when it is ready, code above all, out of the garbage collector's way.

    It stays for as long as the process does; a full collection that looked through all of it took
    some 100 ms, during which nobody was answered.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, *gc.get_threshold()[1:])


def run_until_stopped(parts: tuple[Callable[[], Stoppable], ...]) -> None:
    """Run the parts until SIGTERM or SIGINT; a second signal ends the process at once."""
    stopped = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    runtime = Runtime()
    runtime.start(parts)
    spare_the_collector()
    try:
        stopped.wait()
        logger.info("stopping")
    finally:
        runtime.stop(PARTS_STOP_SECONDS)
    leave()


class _Callback:
    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop

    def stop(self) -> None:
        self._stop()
