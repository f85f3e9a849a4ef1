"""The proxy itself: it cuts what it was told to cut, and nothing else."""

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from devstack.services import start_postgres, start_redis
from tests.faults import protocols
from tests.faults.proxy import Proxy
from tests.stack.services import wait_for

INSERT = "INSERT INTO kept (value) VALUES (%s)"


@pytest.fixture(scope="module")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_postgres(tmp_path_factory.mktemp("postgres")) as postgres:
        with psycopg.connect(postgres.url) as connection:
            connection.execute("CREATE TABLE kept (value int)")
        yield postgres.url


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    port = psycopg.conninfo.conninfo_to_dict(postgres_url)["port"]
    with Proxy(int(str(port)), protocols.Postgres) as running:
        yield running


def kept(postgres_url: str, value: int) -> int:
    with psycopg.connect(postgres_url) as connection:
        row = connection.execute("SELECT count(*) FROM kept WHERE value = %s", [value]).fetchone()
        assert row is not None
        return int(row[0])


@pytest.mark.parametrize("prepared", [False, True])
def test_a_client_cut_off_after_its_message_does_not_know_that_it_was_done(
    postgres_url: str, proxy: Proxy, *, prepared: bool
) -> None:
    value = 1 + prepared
    with psycopg.connect(proxy.url(postgres_url), autocommit=True) as connection:
        connection.execute(INSERT, [value], prepare=prepared)
        trap = proxy.cut_when("INSERT INTO kept")
        with pytest.raises(psycopg.OperationalError):
            connection.execute(INSERT, [value], prepare=prepared)
        assert trap.wait(1, 5)
    wait_for(lambda: kept(postgres_url, value) == 2, 5, "the server to work off what it got")


def test_a_message_that_was_not_forwarded_was_not_done(postgres_url: str, proxy: Proxy) -> None:
    trap = proxy.cut_when("INSERT INTO kept", forwarded=False, times=2)
    for _ in range(2):
        with (
            psycopg.connect(proxy.url(postgres_url), autocommit=True) as connection,
            pytest.raises(psycopg.OperationalError),
        ):
            connection.execute(INSERT, [3])
    with psycopg.connect(proxy.url(postgres_url), autocommit=True) as connection:
        connection.execute(INSERT, [3])
    assert trap.cuts == 2
    assert kept(postgres_url, 3) == 1


def test_a_transaction_is_cut_at_its_commit(postgres_url: str, proxy: Proxy) -> None:
    proxy.cut_when("COMMIT")
    with pytest.raises(psycopg.OperationalError), psycopg.connect(proxy.url(postgres_url)) as lost:
        lost.execute(INSERT, [4])
    wait_for(lambda: kept(postgres_url, 4) == 1, 5, "the commit")


def test_one_connection_is_cut_and_the_others_go_on(postgres_url: str, proxy: Proxy) -> None:
    url = proxy.url(postgres_url)
    with psycopg.connect(url) as first, psycopg.connect(url) as second:
        assert proxy.cut_one() == 1
        with pytest.raises(psycopg.OperationalError):
            first.execute("SELECT 1")
        second.execute("SELECT 1")
        assert proxy.cut_all() == 1
        with pytest.raises(psycopg.OperationalError):
            second.execute("SELECT 1")


def test_a_blackhole_says_nothing_until_it_ends(postgres_url: str, proxy: Proxy) -> None:
    with psycopg.connect(proxy.url(postgres_url), autocommit=True) as connection:
        proxy.blackhole()
        connection.pgconn.send_query(b"SELECT 1")
        connection.pgconn.flush()
        time.sleep(0.2)
        connection.pgconn.consume_input()
        assert connection.pgconn.is_busy()
        proxy.pass_on()
        # `get_result` alone would wait with the interpreter's lock, which the proxy needs too.
        wait_for(lambda: _has_answered(connection), 5, "the answer")
        result = connection.pgconn.get_result()
        assert result is not None
        assert result.status == psycopg.pq.ExecStatus.TUPLES_OK
        assert connection.pgconn.get_result() is None


def test_a_delay_holds_back_both_ways(tmp_path: Path) -> None:
    with start_redis(tmp_path) as server, Proxy(server.port) as proxy:
        client = redis.Redis.from_url(proxy.url(server.url))
        assert client.ping()
        proxy.delay_seconds = 0.1
        began = time.monotonic()
        assert client.ping()
        assert time.monotonic() - began >= 0.2
        proxy.stop()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        client.close()


def _has_answered(connection: psycopg.Connection) -> bool:
    connection.pgconn.consume_input()
    return not connection.pgconn.is_busy()
