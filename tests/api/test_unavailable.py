"""What a client is told while a part of the service does not work."""

import logging
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError
from pytest_django import Settings

from config.problems import KEYS_UNREADABLE
from eventstore import keys
from eventstore.database import StoreUnavailable
from projections import queries
from projections.models import StatementEntry
from projections.positions import Place
from projections.queries import ReadModelParked
from tests.api.client import PASSWORD, Api, User, assert_problem

STREAM = UUID(int=7)
#: Long before anybody registered here.
AT_AN_INSTANT = "/token/?at=2020-01-01T00:00:00Z"
CREDENTIALS = {"username": "charlie", "password": "a long password"}


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("broken", "method", "path", "body"),
    [
        ("accounts.commands.register_user", "POST", "/users/register/", CREDENTIALS),
        ("accounts.commands.log_in", "POST", "/users/login/", CREDENTIALS),
        ("accounts.callers.find_callers", "GET", "/token/", None),
        ("projections.queries.balances", "GET", "/token/", None),
        ("projections.queries.list_users", "GET", "/users/", None),
        ("projections.queries.statement", "GET", "/token/statement/", None),
        ("projections.queries.registered_at", "GET", AT_AN_INSTANT, None),
        ("accounts.api.settle", "GET", AT_AN_INSTANT, None),
    ],
)
def test_without_a_database_the_client_may_come_back(
    api: Api,
    alice: User,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
    method: str,
    path: str,
    body: dict[str, str] | None,
) -> None:
    monkeypatch.setattr(broken, raising(StoreUnavailable("a password of ours")))
    answer = api.call(method, path, alice, json=body)
    assert_problem(answer, 503, "store-unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert "password of ours" not in answer.text


@pytest.fixture
def forgotten() -> Iterator[None]:
    """No key is remembered, as after a start, and none that was opened here is later."""
    keys.forget()
    yield
    keys.forget()


def test_with_a_key_that_does_not_open_the_log_the_client_may_come_back(
    api: Api,
    alice: User,
    settings: Settings,
    forgotten: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.DATA_KEY = bytes(32)
    login = {"username": alice.username, "password": PASSWORD}
    for method, path, body in (
        ("POST", "/users/login/", login),
        ("POST", "/users/register/", CREDENTIALS),
        ("GET", "/users/me/", None),
        ("GET", "/token/statement/", None),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            answer = api.call(method, path, alice, json=body)
        problem = assert_problem(answer, 503, "keys-unreadable")
        assert int(answer.headers["retry-after"]) >= 1
        assert problem["detail"] == KEYS_UNREADABLE.meaning
        (line,) = [each.getMessage() for each in caplog.records if each.name == "config.api"]
        assert f"request {problem['request_id']}: " in line
        assert "DATA_KEY does not open key" in line


def test_one_text_that_does_not_open_is_damage_and_told_as_a_mistake_of_ours(
    api: Api, alice: User, forgotten: None, caplog: pytest.LogCaptureFixture
) -> None:
    api.get("/token/statement/", alice)
    rows = StatementEntry.objects.filter(user_id=alice.id)
    (row,) = rows
    reason = bytes(row.reason or b"")
    rows.update(reason=reason[:-1] + bytes([reason[-1] ^ 1]))
    with caplog.at_level(logging.ERROR):
        answer = api.http.get("/token/statement/", headers=alice.headers)
    assert_problem(answer, 500, "internal-error")
    assert "does not open" in caplog.text


def test_a_send_that_cannot_be_stored_is_not_accepted(
    api: Api, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the writer finds it, on the first look and on the second.
    away = raising(OperationalError("away"))
    monkeypatch.setattr("eventstore.writer._append_and_commit", away)
    assert_problem(api.send(alice, "hello"), 503, "store-unavailable")


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("balance", "/users/me/"),
        ("user", "/users/me/"),
        ("list_users", "/users/"),
        ("statement", "/token/statement/"),
        ("registered_at", AT_AN_INSTANT),
        ("message", f"/messages/{STREAM}/"),
    ],
)
def test_what_is_parked_is_not_shown_and_the_kind_of_the_reason_is_told(
    api: Api, alice: User, monkeypatch: pytest.MonkeyPatch, query: str, path: str
) -> None:
    parked = ReadModelParked("balances", STREAM, "ValueError: a secret of whoever's event it is")
    monkeypatch.setattr(f"projections.queries.{query}", raising(parked))
    problem = assert_problem(api.get(path, alice), 503, "read-model-parked")
    assert str(STREAM) in problem["detail"]
    assert "balances" in problem["detail"]
    assert "(ValueError)" in problem["detail"]
    assert "secret" not in problem["detail"]


@pytest.mark.parametrize(
    ("query", "path"),
    [("balance", "/users/me/"), ("user", "/users/me/"), ("registered_at", AT_AN_INSTANT)],
)
def test_what_is_not_shown_yet_is_not_invented(
    api: Api, alice: User, monkeypatch: pytest.MonkeyPatch, query: str, path: str
) -> None:
    monkeypatch.setattr(f"projections.queries.{query}", lambda user_id: None)
    answer = api.get(path, alice)
    assert_problem(answer, 503, "read-model-behind")
    assert int(answer.headers["retry-after"]) >= 1


def test_a_balance_that_is_parked_is_not_shown(
    api: Api, alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    parked = ReadModelParked("balances", UUID(alice.id), "ValueError: a secret")
    found = {UUID(alice.id): parked, UUID(bob.id): 7}
    monkeypatch.setattr("projections.queries.balances", lambda user_ids: found)
    problem = assert_problem(api.get("/token/", alice), 503, "read-model-parked")
    assert "(ValueError)" in problem["detail"]
    assert "secret" not in problem["detail"]
    assert api.balance(bob) == 7


def test_a_balance_that_is_not_shown_yet_is_not_invented(
    api: Api, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.queries.balances", lambda user_ids: {})
    assert_problem(api.get("/token/", alice), 503, "read-model-behind")


def test_a_statement_that_is_not_shown_yet_is_not_empty(
    api: Api, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.queries.statement", lambda user_id, before, limit: [])
    assert api.get("/token/statement/", alice).json() == []
    monkeypatch.setattr("projections.queries.balance", lambda user_id: None)
    assert_problem(api.get("/token/statement/", alice), 503, "read-model-behind")


def test_without_followers_a_balance_of_the_past_is_not_told(
    api: Api, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(position: int, *names: str) -> bool:
        assert position > 0
        assert set(names) == {"users", "statement"}
        return False

    monkeypatch.setattr("accounts.api.shown", never)
    assert_problem(api.get(AT_AN_INSTANT, alice), 503, "read-model-behind")
    assert api.balance(alice) == 4000


def _looked_for(api: Api, user: User) -> dict[str, str]:
    """The addresses of a message and of a conversation of the user's."""
    message = api.send(user, "hello").headers["location"]
    conversation = api.post("/conversations/", {}, user).headers["location"]
    return {"message": message, "conversation": conversation, "messages": conversation}


LOOKED_FOR = [
    ("message", "GET", ""),
    ("message", "GET", "stream/"),
    ("message", "POST", "cancel/"),
    ("conversation", "GET", ""),
    ("messages", "GET", "messages/"),
]


@pytest.mark.parametrize(("query", "method", "more"), LOOKED_FOR)
def test_what_is_not_shown_yet_is_not_said_to_be_nowhere(
    api: Api,
    alice: User,
    bob: User,
    monkeypatch: pytest.MonkeyPatch,
    query: str,
    method: str,
    more: str,
) -> None:
    path = _looked_for(api, alice)[query]
    behind = {name: Place(name, 1, 0, 1) for name in ("history", "conversations")}
    monkeypatch.setattr(f"projections.queries.{query}", lambda *_, **__: None)
    # The second: no follower has ever run on this database.
    for places in (behind, {}):
        monkeypatch.setattr("projections.positions.live", lambda places=places: places)
        assert_problem(api.call(method, path + more, alice), 503, "read-model-behind")
    assert_problem(api.call(method, path + more, bob), 404, "not-found")
    monkeypatch.undo()
    nowhere = path.replace(path.split("/")[2], str(STREAM)) + more
    assert_problem(api.call(method, nowhere, alice), 404, "not-found")


@pytest.mark.parametrize(("query", "method", "more"), LOOKED_FOR)
def test_what_is_shown_while_it_is_looked_for_is_found(
    api: Api, alice: User, monkeypatch: pytest.MonkeyPatch, query: str, method: str, more: str
) -> None:
    path = _looked_for(api, alice)[query]
    look = getattr(queries, query)
    looked: list[object] = []

    def too_early_at_first(*args: Any, **kwargs: Any) -> Any:
        looked.append(args)
        return look(*args, **kwargs) if len(looked) > 1 else None

    monkeypatch.setattr(f"projections.queries.{query}", too_early_at_first)
    assert api.call(method, path + more, alice).status_code == 200


@pytest.fixture
def followers_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is appended is ever shown."""

    async def never(position: int, *names: str) -> bool:
        return False

    monkeypatch.setattr("conversations.api.shown", never)
    monkeypatch.setattr("projections.queries.message", lambda user_id, message_id: None)


def test_without_followers_a_response_goes_out_all_the_same(
    api: Api, alice: User, followers_down: None
) -> None:
    answer = api.send(alice, "hello")
    assert answer.status_code == 201
    assert answer.json() == {"response": "Hi there! How can I help you today?"}


def test_without_followers_a_failure_is_told_all_the_same(
    api: Api, alice: User, followers_down: None
) -> None:
    assert_problem(api.send(alice, "fail"), 502, "no-response")


def test_without_followers_a_repeat_gets_the_response_all_the_same(
    api: Api, alice: User, followers_down: None
) -> None:
    answers = [api.send(alice, "hello", idempotency_key="k") for _ in range(2)]
    assert answers[0].json() == answers[1].json()
