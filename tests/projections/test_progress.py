"""Read your writes: an answer waits until the read models show what it speaks of."""

import asyncio
import functools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import pytest
from django.db import connection

from eventstore import notifications
from eventstore.database import writing
from projections import positions, progress
from projections.models import Position
from projections.progress import CATCH_UP_EVENTS_MAX
from projections.registry import PROJECTIONS
from projections.runner import ProjectionRunner
from projections.sql import execute
from tests.projections.story import ALICE, drain, granted, happened, registered
from tests.projections.test_runner import in_threads

#: A notification that is lost is made up for by a look after one second of silence.
HEARD_SECONDS_MAX = 5.0
#: Enough to tell a wait from none.
WAITING_SECONDS = 0.3


def shown(position: int, *names: str, seconds: float = 0.0) -> bool:
    return asyncio.run(progress.shown(position, *names, timeout_seconds=seconds))


@pytest.fixture
def listener() -> Iterator[None]:
    notifications.start(positions.PROJECTED_CHANNEL)
    yield
    notifications.stop()


@pytest.mark.django_db
def test_what_the_runner_has_projected_is_shown() -> None:
    position = happened(registered(ALICE), granted(ALICE, 500))
    assert not shown(position, "balances")
    drain(ProjectionRunner())
    assert shown(position, *PROJECTIONS)


@pytest.mark.django_db
def test_every_named_projection_must_have_passed() -> None:
    progress.advance({"balances": 7})
    assert shown(7, "balances")
    assert not shown(7, "balances", "history")


@pytest.mark.django_db(transaction=True)
def test_a_process_that_hears_of_no_runner_looks_itself() -> None:
    position = happened(registered(ALICE), granted(ALICE, 500))
    drain(ProjectionRunner())
    assert not shown(position + 1, "balances")
    assert progress.wait_until_shown(position, *PROJECTIONS, timeout_seconds=0.0)
    assert not progress.wait_until_shown(position + 1, "balances", timeout_seconds=0.05)

    later = happened(granted(ALICE, 500))
    with ThreadPoolExecutor(1) as pool:
        runner = pool.submit(in_threads, lambda: drain(ProjectionRunner()))
        assert progress.wait_until_shown(later, "balances", timeout_seconds=HEARD_SECONDS_MAX)
        runner.result()


def test_nothing_is_waited_for_beyond_the_timeout() -> None:
    progress.advance({"users": 7})
    began = time.monotonic()
    assert not shown(8, "users", "balances", "history", seconds=0.05)
    assert time.monotonic() - began < 1


def test_a_read_model_that_is_being_filled_is_not_waited_for_and_all_others_are() -> None:
    end = 3 * CATCH_UP_EVENTS_MAX
    progress.advance({"statement": 500, "users": end, "balances": end - 1})
    began = time.monotonic()
    assert not shown(end, "statement", "users", seconds=60)
    assert time.monotonic() - began < WAITING_SECONDS

    async def wait_for_the_rest() -> bool:
        waiting = asyncio.create_task(
            progress.shown(end, "statement", "balances", timeout_seconds=60)
        )
        await asyncio.sleep(WAITING_SECONDS)
        assert not waiting.done()
        progress.advance({"balances": end})
        return await waiting

    assert not asyncio.run(wait_for_the_rest())
    progress.advance({"statement": end})
    assert shown(end, "statement", "balances", "users")


def test_what_may_be_there_in_time_is_waited_for() -> None:
    progress.advance({"statement": 1})
    for end in (CATCH_UP_EVENTS_MAX, CATCH_UP_EVENTS_MAX + 1):
        began = time.monotonic()
        assert not shown(end, "statement", "users", seconds=WAITING_SECONDS)
        assert time.monotonic() - began >= WAITING_SECONDS


@pytest.mark.django_db
def test_a_command_in_a_shell_does_not_wait_for_a_read_model_that_is_being_filled() -> None:
    drain(ProjectionRunner())
    end = 3 * CATCH_UP_EVENTS_MAX
    Position.objects.update(position=end)
    Position.objects.filter(name="statement").update(position=500)
    began = time.monotonic()
    assert not progress.wait_until_shown(end, *PROJECTIONS, timeout_seconds=60)
    assert time.monotonic() - began < WAITING_SECONDS


def test_a_notification_moves_what_it_names_and_leaves_what_it_does_not_know() -> None:
    progress.hear("balances:7,statement:9,history:8")
    assert shown(7, "balances")
    assert shown(8, "history")
    assert not shown(1, "users")


@pytest.mark.django_db(transaction=True)
def test_a_waiter_is_woken_by_a_runner_in_another_thread() -> None:
    position = happened(registered(ALICE))

    async def wait_for_the_runner() -> bool:
        waiting = asyncio.create_task(progress.shown(position, "users", "balances"))
        await asyncio.sleep(0)
        await asyncio.to_thread(in_threads, lambda: drain(ProjectionRunner()))
        return await waiting

    assert asyncio.run(wait_for_the_runner())


def test_each_waits_for_its_own_position_and_one_call_wakes_all_whose_it_is() -> None:
    async def story() -> list[bool]:
        loop, wait = (
            asyncio.get_running_loop(),
            functools.partial(progress.shown, timeout_seconds=9),
        )
        near = [asyncio.create_task(wait(3, "users", name)) for name in ("balances", "history")]
        far = asyncio.create_task(wait(6, "users"))
        await asyncio.sleep(0)
        with patch.object(loop, "call_soon_threadsafe", wraps=loop.call_soon_threadsafe) as woken:
            progress.advance({"balances": 3, "history": 9})
            assert woken.call_count == 0
            progress.advance({"users": 4})
            assert woken.call_count == 1
        assert await asyncio.gather(*near) == [True, True]
        assert not far.done()
        progress.advance({"users": 6})
        return [await far, await progress.shown(7, "users", timeout_seconds=0.01)]

    assert asyncio.run(story()) == [True, False]


def test_who_has_gone_is_woken_no_more() -> None:
    async def story() -> None:
        gone = asyncio.create_task(progress.shown(3, "users"))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(story())
    progress.advance({"users": 3})  # its loop is closed by now


@pytest.mark.django_db(transaction=True)
def test_another_process_is_heard_on_postgresql(listener: None) -> None:
    if connection.vendor != "postgresql":
        assert positions.announcement([], 7) == []
        return
    drain(ProjectionRunner())
    Position.objects.update(position=3)
    assert shown(3, *PROJECTIONS, seconds=HEARD_SECONDS_MAX)  # so it has begun to listen
    with writing():
        # The positions stay where they are, so whoever looks at them sees nothing.
        execute(positions.announcement(list(positions.live().values()), 7))
    assert shown(7, *PROJECTIONS, seconds=HEARD_SECONDS_MAX)


@pytest.mark.django_db(transaction=True)
def test_a_lost_notification_is_made_up_for(listener: None) -> None:
    drain(ProjectionRunner())
    Position.objects.update(position=7)
    assert shown(7, "users", "balances", seconds=HEARD_SECONDS_MAX)


@pytest.mark.django_db(transaction=True)
def test_what_the_runner_announces_is_heard_before_anybody_looks() -> None:
    if connection.vendor != "postgresql":
        assert positions.announcement([], 7) == []
        return
    happened(registered(ALICE))
    with connection.cursor() as cursor:
        cursor.execute(f'LISTEN "{positions.PROJECTED_CHANNEL}"')
    in_threads(lambda: drain(ProjectionRunner()))
    raw = connection.connection
    heard = [each.payload for each in raw.notifies(timeout=HEARD_SECONDS_MAX, stop_after=1)]
    assert heard == ["balances:1,conversations:1,history:1,pending:1,statement:1,users:1"]
    with connection.cursor() as cursor:
        cursor.execute("UNLISTEN *")
