"""The port of the metrics, and the labels of requests."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from django.http import HttpRequest
from django.urls import resolve
from prometheus_client import REGISTRY

from config.checks import StartRefused
from config.metrics import server as server_module
from config.metrics.reading import Reading
from config.metrics.requests import REQUESTS, count_request
from config.metrics.server import CLIENTS_MAX, MetricsServer
from devstack.processes import free_port
from tests.config.processes import manage, the_line

MESSAGE = "/messages/{message_id}/"


def answered(path: str, method: str = "GET", status: int = 200) -> None:
    request = HttpRequest()
    request.resolver_match = resolve(path)
    count_request(request, method, status, 0.02)


def requests(route: str, method: str = "GET", status: int = 200) -> float:
    labels = {"method": method, "route": route, "status": str(status)}
    return REGISTRY.get_sample_value("chatledger_requests_total", labels) or 0


def test_a_request_counts_under_the_template_of_its_route() -> None:
    before = requests(MESSAGE)
    answered("/messages/0b0f4d2e-6a1c-4c57-9c1e-000000000001/")
    answered("/messages/0b0f4d2e-6a1c-4c57-9c1e-000000000002/")

    assert requests(MESSAGE) == before + 2


def series() -> int:
    names = [sample.name for family in REQUESTS.collect() for sample in family.samples]
    return names.count("chatledger_requests_total")


def test_what_a_client_makes_up_makes_no_series() -> None:
    answered("/nowhere", "POST", 404)
    before, known = series(), requests("/token/", "other", 405)
    for number in range(50):
        answered(f"/nowhere/{number}/at/all", "POST", 404)
        answered("/token/", f"METHOD-{number}", 405)
        request = HttpRequest()  # refused before anybody looked where it goes
        count_request(request, "POST", 404, 0.0)

    assert series() <= before + 1
    assert requests("unmatched", "POST", 404) >= 101
    assert requests("/token/", "other", 405) == known + 50


@pytest.fixture
def port() -> Iterator[int]:
    port = free_port()
    server = MetricsServer("127.0.0.1", port)
    yield port
    server.stop()


def scrape(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    return connection.getresponse().read().decode()


def test_metrics_are_served_on_their_port_and_not_after_a_stop() -> None:
    port = free_port()
    server = MetricsServer("127.0.0.1", port)
    assert "chatledger_requests_total" in scrape(port)
    assert "_created" not in scrape(port)
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        scrape(port)


def test_a_port_in_use_is_one_line_that_names_the_setting(port: int) -> None:
    with pytest.raises(StartRefused, match=f"Port {port} is in use .*METRICS_PORT={port + 1}"):
        MetricsServer("127.0.0.1", port)


def test_a_process_whose_port_is_in_use_does_not_start(port: int, tmp_path: Path) -> None:
    ports = {"PORT": str(free_port()), "METRICS_PORT": str(port)}
    result = manage("serve", "--migrate", VAR_DIR=str(tmp_path), **ports)
    assert f"Port {port} is in use on 127.0.0.1" in the_line(result)
    assert result.returncode == 1


def test_clients_that_say_nothing_are_bounded_and_given_up(
    monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    monkeypatch.setattr(server_module._Handler, "timeout", 0.5)
    with ExitStack() as silent:
        for _ in range(CLIENTS_MAX):
            silent.enter_context(socket.create_connection(("127.0.0.1", port)))
        one_more = silent.enter_context(socket.create_connection(("127.0.0.1", port)))
        one_more.settimeout(5)
        assert one_more.recv(1) == b""
        until = time.monotonic() + 10
        while True:
            try:
                assert "chatledger" in scrape(port)
                break
            except (http.client.HTTPException, ConnectionError):
                assert time.monotonic() < until
                time.sleep(0.05)


def test_a_look_that_hangs_is_waited_for_within_a_bound_and_not_repeated() -> None:
    over, looks = threading.Event(), []

    def look() -> int:
        looks.append(1)
        over.wait(10)
        return 7

    reading = Reading("database", look, seconds_max=0.1)
    began = time.monotonic()
    assert [reading.result(reading.begin()) for _ in range(3)] == [None] * 3
    assert time.monotonic() - began < 3
    assert len(looks) == 1
    hanging = reading.begin()
    over.set()
    assert hanging.result(5) == 7
    assert reading.result(reading.begin()) == 7
    reading.close()


def test_a_look_that_fails_finds_nothing() -> None:
    reading = Reading("database", lambda: 1 // 0, seconds_max=1)
    assert reading.result(reading.begin()) is None
    reading.close()
