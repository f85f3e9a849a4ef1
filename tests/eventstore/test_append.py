from uuid import uuid4

import pytest
from django.db import transaction
from eventsourcing.persistence import IntegrityError

from eventstore.append import ROWS_MAX, Conflict, Job, append_here
from eventstore.clock import to_datetime
from eventstore.database import writing
from eventstore.models import EventRecord
from eventstore.reading import clock_now, max_position, read_events, read_stream
from tests.eventstore.making import CAUSE, append_jobs, events

pytestmark = pytest.mark.django_db(transaction=True)


def test_jobs_get_consecutive_positions_in_their_order() -> None:
    assert append_jobs(events(count=2), events(), events(count=3)) == [2, 3, 6]
    assert [event.position for event in read_events(0)] == [1, 2, 3, 4, 5, 6]
    assert max_position() == 6


def test_a_conflict_takes_nobody_along_and_leaves_no_gap() -> None:
    taken = uuid4()
    append_jobs(events(taken))
    outcomes = append_jobs(events(count=2), events(taken, count=2), events())
    assert outcomes == [3, Conflict(taken, 1), 4]
    assert [event.position for event in read_events(0)] == [1, 2, 3, 4]
    assert len(read_stream(taken)) == 1


def test_two_jobs_of_one_commit_cannot_both_have_a_version() -> None:
    stream = uuid4()
    # Neither is first: they were decided one on the other, and at least one of them wrongly.
    assert append_jobs(events(stream), events(stream), events()) == [
        Conflict(stream, 1),
        Conflict(stream, 1),
        1,
    ]
    assert read_stream(stream) == []


def test_jobs_that_build_on_each_other_get_positions_of_their_own() -> None:
    one, other = uuid4(), uuid4()
    outcomes = append_jobs(
        events(one, count=2), events(other), events(one, first=3), events(other, first=2, count=2)
    )
    # Those of one stream stand behind each other, whatever came between.
    assert outcomes == [2, 4, 3, 6]
    assert [event.position for event in read_events(0)] == [1, 2, 3, 4, 5, 6]
    assert [event.version for event in read_stream(one)] == [1, 2, 3]
    assert [event.position for event in read_stream(other)] == [4, 5, 6]


def test_a_conflict_takes_along_what_builds_on_it_and_nobody_else() -> None:
    taken, account, other = uuid4(), uuid4(), uuid4()
    append_jobs(events(taken))
    outcomes = append_jobs(
        [*events(account), *events(uuid4())],
        events(other),
        # Only this one has lost a race, but the next was decided on it, and it on the first.
        [*events(account, first=2), *events(taken)],
        events(account, first=3),
        events(other, first=2),
    )
    assert outcomes == [Conflict(account, 1), 2, Conflict(account, 2), Conflict(account, 3), 3]
    assert read_stream(account) == []
    assert [event.position for event in read_stream(other)] == [2, 3]
    assert len(read_stream(taken)) == 1
    assert max_position() == 3


def test_jobs_are_held_together_by_way_of_others() -> None:
    one, other, taken = uuid4(), uuid4(), uuid4()
    append_jobs(events(taken))
    outcomes = append_jobs(
        events(one),
        [*events(other), *events(taken)],
        [*events(one, first=2), *events(other, first=2)],
    )
    assert outcomes == [Conflict(one, 1), Conflict(other, 1), Conflict(one, 2)]
    assert max_position() == 1


def test_more_rows_than_a_statement_inserts_are_stored_wholly_or_not_at_all() -> None:
    taken, long = uuid4(), uuid4()
    append_jobs(events(taken))
    assert append_jobs([*events(long, count=ROWS_MAX), *events(taken)]) == [Conflict(long, 1)]
    assert max_position() == 1
    jobs = [events(count=ROWS_MAX - 1), events(count=2), events(count=ROWS_MAX)]
    assert append_jobs(*jobs) == [ROWS_MAX, ROWS_MAX + 2, 2 * ROWS_MAX + 2]
    assert max_position() == 2 * ROWS_MAX + 2


def test_a_job_is_stored_wholly_or_not_at_all() -> None:
    taken = uuid4()
    append_jobs(events(taken, first=1, count=2))
    free = uuid4()
    job = [*events(free), *events(taken, first=2)]
    assert append_jobs(job) == [Conflict(free, 1)]
    assert read_stream(free) == []


def test_events_carry_who_caused_them_and_one_time_that_never_goes_back() -> None:
    before = clock_now()
    append_jobs(events(count=2))
    first, second = read_events(0)
    assert (first.actor, first.request_id, first.causation_id) == ("user:alice", "request-1", None)
    assert first.event_id != second.event_id
    assert before <= first.at == second.at <= clock_now()
    assert to_datetime(first.at).timestamp() == pytest.approx(first.at / 1_000_000)


def test_a_clock_that_goes_back_does_not_take_the_log_with_it() -> None:
    append_jobs(events())
    an_hour_ahead = clock_now() + 3_600_000_000
    EventRecord.objects.update(at=an_hour_ahead)
    append_jobs(events())
    assert [event.at for event in read_events(0)] == [an_hour_ahead, an_hour_ahead]


def test_inside_a_transaction_events_are_part_of_it() -> None:
    with pytest.raises(RuntimeError), writing():
        append_here(Job(events(), CAUSE))
        raise RuntimeError
    assert max_position() == 0


def test_a_conflict_inside_a_transaction_leaves_the_transaction_usable() -> None:
    taken = uuid4()
    append_jobs(events(taken))
    with writing():
        with pytest.raises(IntegrityError):
            append_here(Job(events(taken, count=2), CAUSE))
        assert append_here(Job(events(), CAUSE)) == 2
        assert transaction.get_connection().in_atomic_block
    assert [event.position for event in read_events(0)] == [1, 2]
