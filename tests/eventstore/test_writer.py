import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection
from eventsourcing.persistence import IntegrityError
from prometheus_client import REGISTRY

from eventstore.append import Job
from eventstore.marker import appended
from eventstore.reading import max_position, read_events
from eventstore.writer import SharedWriter
from tests.eventstore.making import CAUSE, events

pytestmark = pytest.mark.django_db(transaction=True)


def test_callers_share_commits_and_each_gets_its_own_position() -> None:
    shared = SharedWriter()
    with ThreadPoolExecutor(16) as callers:
        positions = list(
            callers.map(lambda _: shared.store(Job(events(count=2), CAUSE)), range(64))
        )
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
            shared.store(Job(events(stream), CAUSE))
        except IntegrityError:
            return False
        return True

    with ThreadPoolExecutor(16) as callers:
        assert sum(callers.map(race, range(16))) == 1
    assert max_position() == 1


def test_the_writer_outlives_a_connection_that_was_killed() -> None:
    shared = SharedWriter()
    shared.store(Job(events(), CAUSE))
    kill_writers_connection(shared)
    shared.store(Job(events(), CAUSE))
    assert max_position() == 2


def test_a_job_that_cannot_be_stored_takes_nobody_along() -> None:
    shared = SharedWriter()
    broken = events()
    object.__setattr__(broken[0], "topic", None)
    good = [Job(events(), CAUSE) for _ in range(5)]
    with ThreadPoolExecutor(6) as callers:
        failing = callers.submit(shared.store, Job(broken, CAUSE))
        positions = list(callers.map(shared.store, good))
        assert failing.exception() is not None
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
        shared.store(Job(events(), CAUSE))
    broken = events()
    object.__setattr__(broken[0], "topic", None)
    with pytest.raises(DatabaseError):
        shared.store(Job(broken, CAUSE))
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
        closed = threading.Event()

        class Closing(Job):
            __slots__ = ()

            @property
            def events(self) -> list[object]:  # type: ignore[override]
                connection.connection.close()
                closed.set()
                return []

        with pytest.raises(Exception):  # noqa: B017, PT011 (whatever it is, it must not be the last word)
            shared.store(Closing.__new__(Closing))
        assert closed.wait(5)


def test_writers_of_several_processes_never_let_a_position_appear_behind_a_reader() -> None:
    # Each shared writer has a connection of its own, as each process has.
    writers = [SharedWriter() for _ in range(4)]
    jobs = 50

    def write(shared: SharedWriter) -> None:
        for _ in range(jobs):
            shared.store(Job(events(count=2), CAUSE))

    seen: list[int] = []
    with ThreadPoolExecutor(len(writers)) as processes:
        writing = [processes.submit(write, shared) for shared in writers]
        while not all(each.done() for each in writing):
            seen += [event.position for event in read_events(seen[-1] if seen else 0)]
        for each in writing:
            each.result()
    seen += [event.position for event in read_events(seen[-1])]
    assert seen == list(range(1, len(writers) * jobs * 2 + 1))
