"""Threads that an event loop hands work to."""

import asyncio
import subprocess
import sys
import threading
from contextvars import ContextVar, copy_context

import pytest

from eventstore.threads import Call, Threads

SHOWN: ContextVar[str] = ContextVar("SHOWN")


def test_a_thread_is_started_only_when_all_others_are_busy() -> None:
    threads, seen = Threads(3, "test"), set()

    async def story() -> None:
        for _ in range(20):
            call = Call(threading.get_ident, copy_context())
            threads.run(call)
            seen.add(await call.future)

    asyncio.run(story())
    # The one that has told its result may not be back in line when the next comes.
    assert len(seen) <= 2


def test_no_more_than_so_many_work_at_once_and_the_others_wait_in_line() -> None:
    threads, guard, go_on = Threads(3, "test"), threading.Lock(), threading.Event()
    working, most = 0, 0

    def work() -> None:
        nonlocal working, most
        with guard:
            working += 1
            most = max(most, working)
            if working == 3:
                go_on.set()
        assert go_on.wait(10)
        with guard:
            working -= 1

    async def story() -> None:
        calls = [Call(work, copy_context()) for _ in range(12)]
        for call in calls:
            threads.run(call)
        await asyncio.gather(*(call.future for call in calls))

    asyncio.run(story())
    assert most == 3


def test_a_call_sees_its_context_and_its_error_reaches_who_waits() -> None:
    threads = Threads(1, "test")

    def fail() -> None:
        raise LookupError(SHOWN.get())

    async def story() -> None:
        SHOWN.set("here")
        call = Call(fail, copy_context())
        threads.run(call)
        with pytest.raises(LookupError, match="here"):
            await call.future

    asyncio.run(story())


def test_what_was_given_up_before_it_began_never_begins() -> None:
    threads, go_on, ran = Threads(1, "test"), threading.Event(), []

    async def story() -> None:
        first = Call(lambda: go_on.wait(10), copy_context())
        second = Call(lambda: ran.append(2), copy_context())
        third = Call(lambda: ran.append(3), copy_context())
        for call in (first, second, third):
            threads.run(call)
        second.future.cancel()
        go_on.set()
        await third.future

    asyncio.run(story())
    assert ran == [3]


def test_a_process_that_ends_lets_its_threads_finish_what_they_do() -> None:
    script = """
import time
from eventstore.threads import Threads

def work():
    time.sleep(0.2)
    print("done", flush=True)

Threads(2, "test").run(work)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "done\n"
