"""Statements by the database's own driver: what goes in comes out, and errors are Django's."""

import gc
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import DataError, IntegrityError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from eventstore import direct
from eventstore.direct import array, execute

pytestmark = pytest.mark.django_db(transaction=True)


def on_postgres(test: Callable[..., None]) -> Callable[..., None]:
    """What only PostgreSQL's half can do or get wrong; on SQLite there is nothing to see."""

    @wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        if connection.vendor == "postgresql":
            test(*args, **kwargs)

    return wrapper


def typed(**types: str) -> str:
    """A statement that returns its values, as columns of these types."""
    mark = "%s::{}" if connection.vendor == "postgresql" else "%s"
    return f"SELECT {', '.join(mark.format(each) for each in types.values())}"


def test_each_value_comes_back_as_it_went_in() -> None:
    id_ = uuid4()
    sql = typed(a="uuid", b="bigint", c="text", d="text", e="bytea", f="bigint")
    (row,) = execute(sql, [id_, -(2**62), "käse €\t'\"\\ 🦜", "", b"\x00\xff{}", None])
    assert (UUID(str(row[0])), *row[1:]) == (
        *(id_, -(2**62), "käse €\t'\"\\ 🦜", ""),
        *(b"\x00\xff{}", None),
    )


def test_it_returns_all_rows_and_none() -> None:
    numbers = "SELECT 1 AS number UNION ALL SELECT 2 ORDER BY number"
    assert execute(numbers) == [(1,), (2,)]
    assert execute(f"SELECT number FROM ({numbers}) AS both_of_them WHERE number > 2") == []
    assert execute("DELETE FROM eventstore_event") == []


def test_django_sees_the_statement() -> None:
    with CaptureQueriesContext(connection) as seen:
        execute("SELECT 1")
    assert [each["sql"] for each in seen] == ["SELECT 1"]


def test_what_is_wrong_is_djangos_error() -> None:
    insert = "INSERT INTO eventstore_checkpoint (number) VALUES (1)"
    with pytest.raises(IntegrityError):
        execute(insert)
    # And the connection is as good as before.
    assert execute("SELECT 1") == [(1,)]


def test_in_a_transaction_it_is_a_part_of_it() -> None:
    class Undone(Exception):
        pass

    pointer = "SELECT count(*) FROM projections_pointer WHERE name = %s"
    with pytest.raises(Undone), transaction.atomic():
        # The first statement of all: it is this one that has to begin the transaction.
        execute(
            "INSERT INTO projections_pointer (name, generation, newest_generation)"
            " VALUES (%s, %s, %s)",
            ["made up", 1, 1],
        )
        assert execute(pointer, ["made up"]) == [(1,)]
        raise Undone
    assert execute(pointer, ["made up"]) == [(0,)]


def test_in_a_transaction_that_is_to_be_rolled_back_nothing_can_be_done() -> None:
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(transaction.TransactionManagementError):
            execute("SELECT 1")


@on_postgres
@pytest.mark.parametrize("values", [[], [1, 2], [1.5]])
@pytest.mark.parametrize("atomic", [False, True])
def test_values_that_do_not_fit_are_a_mistake_of_ours(values: list[Any], *, atomic: bool) -> None:
    with transaction.atomic() if atomic else nullcontext(), pytest.raises(TypeError):
        execute("SELECT %s::bigint", values)


@on_postgres
def test_postgres_takes_arrays_in_its_own_form() -> None:
    ids, numbers = [uuid4(), None, uuid4()], [1, -(2**31), None]
    texts, data = ["", 'a,b{}"\\ü', None], [b"\x00", None, b""]
    sql = "SELECT %s::uuid[], %s::int[], %s::text[], %s::bytea[], %s::text[]"
    sent = [array("uuid", ids), array("int", numbers), array("text", texts), array("bytea", data)]
    assert execute(sql, [*sent, array("text", [])]) == [(ids, numbers, texts, data, [])]


@on_postgres
@pytest.mark.parametrize("value", ["a\0b", array("text", ["a\0b"])])
def test_a_nul_is_refused_and_nothing_is_cut_off(value: str | bytes) -> None:
    type_ = "text" if isinstance(value, str) else "text[]"
    with pytest.raises(DataError):
        execute(f"SELECT %s::{type_}", [value])


@on_postgres
def test_what_the_server_has_forgotten_is_prepared_again() -> None:
    sql = "SELECT %s::bigint + 1"
    assert execute(sql, [1]) == [(2,)]
    # As the driver does by itself, after a rollback for example.
    connection.connection.execute("DEALLOCATE ALL")
    assert execute(sql, [2]) == [(3,)]
    assert execute(sql, [3]) == [(4,)]


@on_postgres
def test_in_a_transaction_nothing_is_prepared_that_could_be_forgotten() -> None:
    sql = "SELECT %s::bigint + 2"
    execute(sql, [1])
    connection.connection.execute("DEALLOCATE ALL")
    with transaction.atomic():
        assert execute(sql, [1]) == [(3,)]


@on_postgres
def test_a_connection_keeps_so_many_statements_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "STATEMENTS_MAX", 3)
    connection.close()
    ours = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'chatledger%%'"
    for number in range(6):
        assert execute(f"SELECT {number} + %s::int", [1]) == [(number + 1,)]
    with connection.cursor() as cursor:
        cursor.execute(ours)
        assert cursor.fetchone() == (3,)
    # The one that had to go comes back, and what was used since then stays.
    execute("SELECT 4 + %s::int", [1])
    assert execute("SELECT 0 + %s::int", [1]) == [(1,)]
    assert "SELECT 4 + %s::int" in direct._known[connection.connection]
    assert "SELECT 3 + %s::int" not in direct._known[connection.connection]


@on_postgres
def test_a_connection_that_is_cut_is_a_connection_error() -> None:
    execute("SELECT 1")
    ours = connection.connection.info.backend_pid
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [ours])
        assert cursor.fetchone() == (True,)
    other.close()
    with pytest.raises(OperationalError):
        execute("SELECT 1")
    connection.close()
    assert execute("SELECT 1") == [(1,)]


@on_postgres
def test_a_table_that_was_changed_meanwhile_is_read_as_it_is() -> None:
    changed = "CREATE TABLE direct_changed AS SELECT 1::{} AS number"
    read = "SELECT number FROM direct_changed"
    execute(changed.format("bigint"))
    try:
        assert execute(read) == [(1,)]
        execute("ALTER TABLE direct_changed ALTER COLUMN number TYPE text")
        assert execute(read) == [("1",)]
    finally:
        execute("DROP TABLE direct_changed")


@contextmanager
def locked(table: str, seconds: float) -> Iterator[None]:
    """Another session keeps everybody from a table for so long."""
    other = connection.copy()
    # It ends in another thread than it began in.
    other.inc_thread_sharing()
    other.set_autocommit(False)
    with other.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
    timer = threading.Timer(seconds, other.rollback)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        other.close()


@on_postgres
@pytest.mark.parametrize("known", [False, True])
def test_other_threads_run_while_the_server_takes_its_time(*, known: bool) -> None:
    sql = f"SELECT count(*), '{uuid4()}' FROM projections_pending"
    connection.ensure_connection()
    if known:
        execute(sql)
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.wait(0.01):
            ticks.append(time.monotonic())

    other = threading.Thread(target=tick)
    with locked("projections_pending", 0.3):
        other.start()
        execute(sql)
        done.set()
    other.join()
    assert max(b - a for a, b in pairwise(ticks)) < 0.2
    assert len(ticks) > 5


@on_postgres
def test_ctrl_c_breaks_off_what_takes_too_long() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
    began = time.monotonic()
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            execute("SELECT pg_sleep(10)")
        assert time.monotonic() - began < 5
        # The server was told, too.
        assert execute("SELECT 1") == [(1,)]
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


@on_postgres
def test_what_is_known_of_a_connection_goes_with_it() -> None:
    connection.close()
    execute("SELECT 1")
    raw = weakref.ref(connection.connection)
    connection.close()
    gc.collect()
    assert raw() is None
