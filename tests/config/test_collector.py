"""The garbage collector: what a process has when it is ready is not looked through again."""

import asyncio
import gc
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from config import asgi, checks, runtime


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def is_spared() -> bool:
    return gc.get_freeze_count() > 0 and gc.get_threshold()[0] == runtime.COLLECT_AFTER_OBJECTS


class Ring:
    """Garbage that only the collector finds, once nobody knows it any more."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_there_is_spared_and_what_comes_later_is_not() -> None:
    before = Ring()
    runtime.spare_the_collector()
    assert is_spared()
    later = Ring()
    there, gone = weakref.ref(before), weakref.ref(later)

    del before, later
    gc.collect()

    assert there() is not None
    assert gone() is None


def test_a_web_process_that_is_ready_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("require_keys", "require_ready_database"):
        monkeypatch.setattr(checks, name, lambda *_: None)
    monkeypatch.setattr(runtime, "web_parts", tuple)
    told: list[tuple[str, bool]] = []

    async def send(message: Any) -> None:
        told.append((message["type"], is_spared()))

    async def receive() -> Any:
        return {}

    asyncio.run(asgi._live(receive, send))
    assert told[0] == ("lifespan.startup.complete", True)


def test_a_worker_and_a_follower_that_run_are_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    class Stopped:
        """An event that is set as soon as somebody waits for it."""

        def wait(self) -> None:
            seen.append(is_spared())

    handlers: dict[int, Callable[..., None]] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(threading, "Event", Stopped)
    monkeypatch.setattr(runtime, "leave", lambda: None)
    runtime.run_until_stopped(())
    assert seen == [True]
