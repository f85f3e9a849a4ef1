"""`POST /users/{id}/grants/`"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pytest_django import Settings

from accounts import staff_api
from eventstore.reading import RecordedEvent, max_position, read_events
from projections import progress
from tests.api.client import Api, User, assert_problem, places


def grant(
    api: Api,
    staff: User,
    user_id: str,
    *,
    key: str | None = None,
    **changes: Any,
) -> httpx.Response:
    body = {"amount": 500, "reason": "sorry for the outage"} | changes
    headers = {} if key is None else {"Idempotency-Key": key}
    return api.post(f"/users/{user_id}/grants/", body, staff, headers=headers)


def grants_since(position: int) -> list[RecordedEvent]:
    return [event for event in read_events(position) if event.topic.endswith(".GrantMade")]


def test_it_answers_with_the_grant_and_the_balance_shows_it(
    api: Api, staff: User, alice: User
) -> None:
    answer = grant(api, staff, alice.id)
    assert answer.status_code == 201
    made = answer.json()
    assert made.pop("id")
    assert made == {"user_id": alice.id, "amount": 500, "reason": "sorry for the outage"}
    assert api.balance(alice) == 4500
    assert api.balance(staff) == 4000


def test_the_log_says_who_and_on_which_request(api: Api, staff: User, alice: User) -> None:
    before = max_position()
    answer = grant(api, staff, alice.id)
    (event,) = grants_since(before)
    assert event.actor == f"staff:{staff.id}"
    assert (event.request_id, str(event.stream_id)) == (
        answer.headers["x-request-id"],
        answer.json()["id"],
    )


def test_the_answer_comes_when_the_balance_shows_it(
    api: Api, staff: User, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[tuple[int, tuple[str, ...]]] = []

    async def shown(position: int, *names: str) -> bool:
        waited.append((position, names))
        return await progress.shown(position, *names)

    monkeypatch.setattr(staff_api, "shown", shown)
    before = max_position()
    for _ in range(2):
        grant(api, staff, alice.id, key="monday")
    (event,) = grants_since(before)
    assert all(position >= event.position and "balances" in names for position, names in waited)
    assert len(waited) == 2


def test_staff_may_grant_to_staff_and_to_oneself(api: Api, staff: User) -> None:
    assert grant(api, staff, staff.id).status_code == 201
    assert api.balance(staff) == 4500


def test_what_is_granted_can_be_spent(
    api: Api, staff: User, alice: User, settings: Settings
) -> None:
    settings.MESSAGE_PRICE = 4500
    assert_problem(api.send(alice, "hello"), 402, "insufficient-tokens")
    grant(api, staff, alice.id)
    assert api.send(alice, "hello").status_code == 201
    assert api.balance(alice) == 0


def test_a_deactivated_user_may_be_granted(api: Api, staff: User, alice: User) -> None:
    api.post(f"/users/{alice.id}/deactivate/", user=staff)
    assert grant(api, staff, alice.id).status_code == 201
    api.post(f"/users/{alice.id}/activate/", user=staff)
    assert api.balance(api.log_in(alice.id, alice.username)) == 4500


def test_nobody_is_not_found(api: Api, staff: User) -> None:
    before = max_position()
    assert_problem(grant(api, staff, str(uuid4())), 404, "not-found")
    assert max_position() == before


@pytest.mark.parametrize("amount", [1, 1_000_000_000])
def test_the_bounds_of_an_amount(api: Api, staff: User, alice: User, amount: int) -> None:
    assert grant(api, staff, alice.id, amount=amount).status_code == 201
    assert api.balance(alice) == 4000 + amount


@pytest.mark.parametrize(
    "amount", [0, -1, 1_000_000_001, 10**30, 1.0, 1.5, "500", True, None, [500]]
)
def test_no_other_amount_is_taken(api: Api, staff: User, alice: User, amount: Any) -> None:
    answer = grant(api, staff, alice.id, amount=amount)
    problem = assert_problem(answer, 422, "invalid-input")
    assert places(problem) == [["body", "amount"]]
    assert api.balance(alice) == 4000


@pytest.mark.parametrize("reason", ["x", "ü" * 500, "'; DROP TABLE x; --", "[erased]", "\n"])
def test_any_text_is_a_reason(api: Api, staff: User, alice: User, reason: str) -> None:
    for _ in range(2):
        answer = grant(api, staff, alice.id, key="k", reason=reason)
        assert answer.json()["reason"] == reason
    assert api.balance(alice) == 4500


@pytest.mark.parametrize("reason", ["", "x" * 501, "a\0b", None, 5])
def test_no_other_reason_is_taken(api: Api, staff: User, alice: User, reason: Any) -> None:
    answer = grant(api, staff, alice.id, reason=reason)
    problem = assert_problem(answer, 422, "invalid-input")
    assert places(problem) == [["body", "reason"]]
    assert api.balance(alice) == 4000


@pytest.mark.parametrize(
    "content",
    [
        b'{"amount": 5, "reason": "\\ud800"}',
        b'{"amount": 5}',
        b'{"reason": "x"}',
        b'{"amount": 5, "reason": "x", "user_id": "y"}',
        b"null",
        b"[]",
    ],
)
def test_no_other_body_is_taken(api: Api, staff: User, alice: User, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = api.call("POST", f"/users/{alice.id}/grants/", staff, content=content, headers=headers)
    assert_problem(answer, 422, "invalid-input")
    assert api.balance(alice) == 4000


def test_a_repeat_grants_nothing_and_gets_the_same(api: Api, staff: User, alice: User) -> None:
    before = max_position()
    first = grant(api, staff, alice.id, key="monday")
    again = grant(api, staff, alice.id, key="monday")
    assert first.status_code == again.status_code == 201
    assert again.json() == first.json()
    assert api.balance(alice) == 4500
    assert len(grants_since(before)) == 1


@pytest.mark.parametrize("change", [{"amount": 501}, {"reason": "another"}])
def test_another_amount_or_reason_is_refused(
    api: Api, staff: User, alice: User, change: dict[str, Any]
) -> None:
    grant(api, staff, alice.id, key="monday")
    answer = grant(api, staff, alice.id, key="monday", **change)
    problem = assert_problem(answer, 422, "idempotency-key-reused")
    assert places(problem) == [["header", "Idempotency-Key"]]
    assert api.balance(alice) == 4500


def test_another_user_is_refused(api: Api, staff: User, alice: User, bob: User) -> None:
    grant(api, staff, alice.id, key="monday")
    assert_problem(grant(api, staff, bob.id, key="monday"), 422, "idempotency-key-reused")
    assert api.balance(bob) == 4000


def test_a_key_is_one_for_a_message_and_another_for_a_grant(api: Api, staff: User) -> None:
    assert api.send(staff, "hello", idempotency_key="monday").status_code == 201
    assert grant(api, staff, staff.id, key="monday").status_code == 201
    assert api.balance(staff) == 4400


def test_without_a_key_every_grant_is_another(api: Api, staff: User, alice: User) -> None:
    ids = {grant(api, staff, alice.id).json()["id"] for _ in range(2)}
    assert len(ids) == 2
    assert api.balance(alice) == 5000


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
def test_anything_else_is_no_key(api: Api, staff: User, alice: User, key: str) -> None:
    problem = assert_problem(grant(api, staff, alice.id, key=key), 422, "invalid-input")
    assert places(problem) == [["header", "Idempotency-Key"]]
    assert api.balance(alice) == 4000


def test_parallel_repeats_are_one_grant(api: Api, staff: User, alice: User) -> None:
    def one(_: int) -> str:
        return grant(api, staff, alice.id, key="default").text

    with ThreadPoolExecutor(10) as pool:
        assert len(set(pool.map(one, range(10)))) == 1
    assert api.balance(alice) == 4500


def test_grants_and_sends_together_lose_nothing(api: Api, staff: User, alice: User) -> None:
    with ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(api.send, alice, "hello") for _ in range(10)]
        given = [pool.submit(grant, api, staff, alice.id, amount=7) for _ in range(10)]
    assert {each.result().status_code for each in (*sent, *given)} == {201}
    assert api.balance(alice) == 4000 - 10 * 100 + 10 * 7
