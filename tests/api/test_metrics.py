"""What requests leave in the metrics of the process that answers them."""

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from conversations import commands
from eventstore.database import StoreUnavailable
from eventstore.decisions import View
from tests.api.client import Api, User
from tests.api.events import streaming


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


def sends(outcome: str) -> float:
    return value("chatledger_sends_total", outcome=outcome)


def wait_for(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_each_send_counts_under_its_outcome(
    api: Api, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ("accepted", "repeated", "refused_422", "refused_404", "unavailable_503", "error_500")
    before = {outcome: sends(outcome) for outcome in wanted}
    assert api.send(alice, "hello", idempotency_key="one").status_code == 201
    assert api.send(alice, "hello", idempotency_key="one").status_code == 201
    assert api.send(alice, "other", idempotency_key="one").status_code == 422
    nowhere = f"/conversations/{uuid4()}/messages/"
    assert api.post(nowhere, {"message": "hello"}, alice).status_code == 404

    errors = [StoreUnavailable("the database is away"), ValueError("nobody foresaw it")]

    def fail(*_: object) -> Callable[[View], None]:
        error = errors.pop(0)

        def decision(_: View) -> None:
            raise error

        return decision

    monkeypatch.setattr(commands, "sending", fail)
    assert api.send(alice, "hello").status_code == 503
    assert api.http.post("/send/", json={"message": "x"}, headers=alice.headers).status_code == 500
    assert {outcome: sends(outcome) - before[outcome] for outcome in wanted} == dict.fromkeys(
        wanted, 1
    )


def test_a_send_that_nobody_can_pay_for_counts_as_refused(
    api: Api, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sends("refused_402")
    monkeypatch.setattr("django.conf.settings.MESSAGE_PRICE", 5000)
    assert api.send(alice, "hello").status_code == 402
    assert sends("refused_402") == before + 1


def test_a_request_is_timed_under_its_route(api: Api, alice: User) -> None:
    def timed() -> float:
        labels = {"method": "GET", "route": "/messages/{message_id}/"}
        return value("chatledger_request_seconds_count", **labels)

    before = timed()
    assert api.get(f"/messages/{uuid4()}/", alice).status_code == 404
    assert timed() == before + 1


def test_an_event_stream_counts_for_as_long_as_it_is_open(
    api: Api, alice: User, held: threading.Event
) -> None:
    def open_streams() -> float:
        return value("chatledger_event_streams")

    wait_for(lambda: open_streams() == 0)
    with streaming(api, "POST", "/send/", alice, json={"message": "half a tale"}) as (_, events):
        next(events)
        assert open_streams() == 1
        held.set()
        list(events)
    wait_for(lambda: open_streams() == 0)


def test_a_client_that_hangs_up_closes_its_stream(
    api: Api, alice: User, held: threading.Event
) -> None:
    with streaming(api, "POST", "/send/", alice, json={"message": "half a tale"}) as (_, events):
        next(events)
    wait_for(lambda: value("chatledger_event_streams") == 0)


def test_a_worker_counts_the_messages_that_it_is_at(
    api: Api, alice: User, held: threading.Event
) -> None:
    before = value("chatledger_generation_seconds_count")
    headers = {"Prefer": "respond-async"}
    api.post("/send/", {"message": "hold this"}, alice, headers=headers)
    wait_for(lambda: value("chatledger_generating") == 1)
    held.set()
    wait_for(lambda: value("chatledger_generating") == 0)
    assert value("chatledger_generation_seconds_count") > before


def test_passwords_that_wait_for_their_hash_are_counted(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accounts import api as accounts_api

    over = threading.Event()
    try:
        for _ in range(accounts_api.PASSWORD_THREADS_MAX + 3):
            accounts_api._password_threads.submit(over.wait, 10)
        wait_for(lambda: value("chatledger_hashes_waiting") == 3)
    finally:
        over.set()
    wait_for(lambda: value("chatledger_hashes_waiting") == 0)
