"""The shared writer: its thread, its queue, and who else may carry out what waits."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection
from prometheus_client import REGISTRY

from conversations.domain import Conversation
from eventstore import writer
from eventstore.append import Job, Outcome
from eventstore.database import StoreUnavailable
from eventstore.decisions import Append, View
from eventstore.marker import appended
from eventstore.reading import max_position, read_events
from eventstore.writer import Command, SharedWriter, decide_together, deciding_together
from tests.eventstore.deciding import (
    WAIT_SECONDS_MAX,
    Taken,
    Unstorable,
    asked,
    beginning,
    refusal,
    result,
    starting,
    store,
)

pytestmark = pytest.mark.django_db(transaction=True)


def test_callers_share_commits_and_each_gets_its_own_position() -> None:
    shared = SharedWriter()
    with ThreadPoolExecutor(16) as callers:
        positions = list(callers.map(lambda _: store(shared, uuid4(), uuid4()), range(64)))
    assert sorted(positions) == list(range(2, 130, 2))
    assert [event.position for event in read_events(0)] == list(range(1, 129))
    assert appended.value >= 128


def test_of_callers_that_race_for_a_version_one_wins_and_the_others_hear_of_it() -> None:
    shared = SharedWriter()
    stream = uuid4()
    start = threading.Barrier(16)

    def race(_: int) -> bool:
        start.wait()
        try:
            store(shared, stream)
        except Taken:
            return False
        return True

    with ThreadPoolExecutor(16) as callers:
        assert sum(callers.map(race, range(16))) == 1
    assert max_position() == 1


def test_the_writer_outlives_a_connection_that_was_killed() -> None:
    shared = SharedWriter()
    store(shared)
    kill_writers_connection(shared)
    store(shared)
    assert max_position() == 2


def test_a_job_that_cannot_be_stored_takes_nobody_along() -> None:
    shared = SharedWriter()
    broken: Future[int] = Future()
    with ThreadPoolExecutor(6) as callers:
        shared.submit(Command(beginning(Unstorable), broken))
        positions = list(callers.map(lambda _: store(shared), range(5)))
    assert isinstance(broken.exception(WAIT_SECONDS_MAX), DatabaseError)
    assert sorted(positions) == [1, 2, 3, 4, 5]


def test_commits_their_jobs_and_failures_are_counted() -> None:
    names = (
        "commit_seconds_count",
        "commit_jobs_count",
        "commit_jobs_sum",
        "commit_failures_total",
    )

    def counted() -> dict[str, float]:
        return {name: REGISTRY.get_sample_value(f"chatledger_{name}") or 0 for name in names}

    shared, before = SharedWriter(), counted()
    for _ in range(3):
        store(shared)
    broken: Future[int] = Future()
    shared.submit(Command(beginning(Unstorable), broken))
    with pytest.raises(DatabaseError):
        broken.result(WAIT_SECONDS_MAX)
    after = counted()
    assert [after[name] - before[name] for name in names] == [4, 4, 4, 1]


def kill_writers_connection(shared: SharedWriter) -> None:
    """Break the connection under the writer's thread, from outside where the database allows it."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
    else:
        done: Future[int] = Future()

        class Closing:
            request_id, causation_id = "request-1", None

            @property
            def actor(self) -> str:
                connection.connection.close()
                return "user:alice"

        def closing(_: View) -> Append[int]:
            cause: Any = Closing()
            return Append((Conversation.start(uuid4(), user_id=uuid4()),), cause, int)

        shared.submit(Command(closing, done))
        with pytest.raises(Exception):  # noqa: B017, PT011 (whatever it is, it must not be the last word)
            done.result(WAIT_SECONDS_MAX)


def test_writers_of_several_processes_never_let_a_position_appear_behind_a_reader() -> None:
    # Each shared writer has a connection of its own, as each process has.
    writers = [SharedWriter() for _ in range(4)]
    jobs = 50

    def write(shared: SharedWriter) -> None:
        for _ in range(jobs):
            store(shared, uuid4(), uuid4())

    seen: list[int] = []
    with ThreadPoolExecutor(len(writers)) as processes:
        writing = [processes.submit(write, shared) for shared in writers]
        while not all(each.done() for each in writing):
            seen += [event.position for event in read_events(seen[-1] if seen else 0)]
        for each in writing:
            each.result()
    seen += [event.position for event in read_events(seen[-1])]
    assert seen == list(range(1, len(writers) * jobs * 2 + 1))


def test_a_queue_that_is_full_says_so_and_takes_no_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer, "QUEUED_MAX", 2)
    monkeypatch.setattr(SharedWriter, "_ensure_thread", lambda _: None)
    shared = SharedWriter()
    for _ in range(2):
        shared.submit(asked(starting(uuid4())))
    with pytest.raises(StoreUnavailable):
        shared.submit(asked(starting(uuid4())))
    assert shared.queued == 2


def test_nobody_waits_for_ever_for_a_writer_that_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedWriter, "_ensure_thread", lambda _: None)
    monkeypatch.setattr(writer, "shared_writer", SharedWriter())
    monkeypatch.setattr(writer, "COMMIT_TIMEOUT_SECONDS", 0.05)

    async def on_a_loop() -> int:
        return await deciding_together(starting(uuid4()))

    with pytest.raises(StoreUnavailable):
        decide_together(starting(uuid4()))
    with pytest.raises(StoreUnavailable):
        asyncio.run(asyncio.wait_for(on_a_loop(), WAIT_SECONDS_MAX))


def test_who_has_its_commands_carried_out_here_takes_along_what_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SharedWriter, "_ensure_thread", lambda _: None)
    shared, batches = SharedWriter(), batches_of(monkeypatch)
    waiting, mine = asked(starting(uuid4())), [asked(starting(uuid4())) for _ in range(2)]
    shared.submit(waiting)
    shared.carry_out_here(mine)
    assert [result(each) for each in (*mine, waiting)] == [1, 2, 3]
    assert batches == [(threading.get_ident(), 3)]


def test_who_has_it_carried_out_here_hears_a_refusal_of_fresh_state() -> None:
    stream, shared = uuid4(), SharedWriter()
    first, second = asked(starting(stream)), asked(starting(stream))
    shared.carry_out_here([first])
    shared.carry_out_here([second])
    assert isinstance(refusal(second), Taken)


def test_two_threads_never_commit_at_once_and_neither_waits_for_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared, batches = SharedWriter(), batches_of(monkeypatch)
    begun, may_end, really = threading.Event(), threading.Event(), writer._append_and_commit

    def slowly(jobs: Sequence[Job]) -> list[Outcome]:
        begun.set()
        assert may_end.wait(WAIT_SECONDS_MAX)
        return really(jobs)

    monkeypatch.setattr(writer, "_append_and_commit", slowly)
    first, second = asked(starting(uuid4())), asked(starting(uuid4()))
    here = threading.Thread(target=shared.carry_out_here, args=([first],))
    here.start()
    assert begun.wait(WAIT_SECONDS_MAX)
    shared.carry_out_here([second])  # does not wait
    third: Future[int] = Future()
    shared.submit(Command(starting(uuid4()), third))
    assert not third.done()
    assert len(batches) == 1
    may_end.set()
    here.join(WAIT_SECONDS_MAX)
    assert third.result(WAIT_SECONDS_MAX) == 3
    assert [result(each) for each in (first, second)] == [1, 2]
    assert batches[0][0] == here.ident
    assert {thread for thread, _ in batches[1:]}.isdisjoint({here.ident, threading.get_ident()})


def test_what_finds_no_room_fails_and_takes_nobody_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedWriter, "_ensure_thread", lambda _: None)
    monkeypatch.setattr(writer, "QUEUED_MAX", 1)
    shared = SharedWriter()
    fits, does_not = asked(starting(uuid4())), asked(starting(uuid4()))
    with shared._turn:
        shared.carry_out_here([fits, does_not])
    assert isinstance(refusal(does_not), StoreUnavailable)
    assert not fits.done.done()


def batches_of(patch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The thread and the size of each batch that is carried out from now on."""
    batches: list[tuple[int, int]] = []
    really = SharedWriter.carry_out

    def carry_out(self: SharedWriter, batch: Sequence[Command[Any]]) -> list[Command[Any]]:
        batches.append((threading.get_ident(), len(batch)))
        return really(self, batch)

    patch.setattr(SharedWriter, "carry_out", carry_out)
    return batches
