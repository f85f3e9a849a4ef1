"""How often: logins by name and address, registrations by address, sends by user."""

import re
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import AsyncMock
from uuid import UUID, uuid4

import httpx
import pytest
from django.conf import settings as django_settings
from pytest_django import Settings

import accounts.api
import eventstore.database
from accounts import rate_limits
from accounts.at_once import AtOnce
from accounts.counters import MemoryCounters
from accounts.rates import Rate
from accounts.staff_commands import DeactivateUser, deactivate_user
from eventstore.cause import Cause
from eventstore.once import once
from eventstore.redis_client import redis_client
from tests.api.client import PASSWORD, Api, User, assert_problem
from tests.stack.services import wait_for

WRONG = "a guess, and a wrong one"


@pytest.fixture(autouse=True)
def nothing_counted() -> Iterator[None]:
    """What one test counted is none of another's, though all have one address."""
    yield
    for limit in (rate_limits.LOGIN, rate_limits.REGISTER, rate_limits.SEND):
        limit.forget()
    if django_settings.REDIS_URL:
        for key in redis_client().scan_iter("limit:*"):
            redis_client().delete(key)


@pytest.fixture
def five_guesses(settings: Settings) -> None:
    settings.RATE_LIMIT_LOGIN = Rate(5, 300)


def log_in(api: Api, name: str, password: str = WRONG) -> httpx.Response:
    return api.post("/users/login/", {"username": name, "password": password})


def change(api: Api, user: User, current: str, new: str = "another battery") -> httpx.Response:
    return api.post("/users/password/", {"current_password": current, "new_password": new}, user)


def erase(api: Api, user: User, password: str) -> httpx.Response:
    return api.call("DELETE", "/users/me/", user, json={"password": password})


def standing(answer: httpx.Response) -> tuple[str, int, int]:
    """The limit, how many are left, and for how long, as the answer says."""
    match = re.fullmatch(r'"(\w+)";r=(\d+);t=(\d+)', answer.headers["RateLimit"])
    assert match, answer.headers["RateLimit"]
    return match[1], int(match[2]), int(match[3])


def assert_too_often(answer: httpx.Response, limit: str) -> dict[str, Any]:
    document = assert_problem(answer, 429, "too-often")
    name, left, seconds = standing(answer)
    assert (name, left) == (limit, 0)
    assert answer.headers["Retry-After"] == str(seconds)
    assert seconds > 0
    return document


class TestLogin:
    def test_after_so_many_wrong_passwords_not_even_the_right_one_is_tried(
        self, api: Api, alice: User, five_guesses: None
    ) -> None:
        for left in (4, 3, 2, 1, 0):
            answer = log_in(api, alice.username)
            assert_problem(answer, 401, "wrong-credentials")
            assert standing(answer)[:2] == ("login", left)
            assert answer.headers["RateLimit-Policy"] == '"login";q=5;w=300'

        assert_too_often(log_in(api, alice.username, PASSWORD), "login")

    def test_a_name_that_nobody_has_is_refused_alike(
        self, api: Api, alice: User, five_guesses: None
    ) -> None:
        nobody = f"nobody-{uuid4().hex[:8]}"
        for name in (alice.username, nobody):
            for _ in range(5):
                log_in(api, name)
        answers = [log_in(api, name) for name in (alice.username, nobody)]
        said = [assert_too_often(answer, "login") for answer in answers]
        for document in said:
            del document["request_id"]
            document["detail"] = re.sub(r"in \d+ seconds\.$", "", document["detail"])
        assert said[0] == said[1]
        assert answers[0].headers.keys() == answers[1].headers.keys()

    def test_a_name_in_another_case_is_the_same_name(
        self, api: Api, alice: User, five_guesses: None
    ) -> None:
        for name in (str.upper, str.lower, str.title, str.upper, str.lower):
            log_in(api, name(alice.username))

        assert_too_often(log_in(api, alice.username), "login")

    def test_other_names_are_not_held_back(
        self, api: Api, alice: User, bob: User, five_guesses: None
    ) -> None:
        for _ in range(6):
            log_in(api, alice.username)

        assert log_in(api, bob.username, PASSWORD).status_code == 200

    def test_a_right_password_costs_nothing_however_often(
        self, api: Api, alice: User, five_guesses: None
    ) -> None:
        for _ in range(4):
            log_in(api, alice.username)
        for _ in range(10):
            answer = log_in(api, alice.username, PASSWORD)
            assert answer.status_code == 200
            assert standing(answer)[:2] == ("login", 1)

    def test_right_passwords_in_parallel_are_all_taken(
        self, api: Api, alice: User, five_guesses: None
    ) -> None:
        with ThreadPoolExecutor(20) as clients:
            answers = list(clients.map(lambda _: log_in(api, alice.username, PASSWORD), range(40)))

        assert Counter(answer.status_code for answer in answers) == {200: 40}

    def test_guesses_in_parallel_are_no_more(
        self, api: Api, alice: User, five_guesses: None
    ) -> None:
        with ThreadPoolExecutor(20) as clients:
            answers = list(clients.map(lambda _: log_in(api, alice.username), range(40)))

        assert Counter(answer.status_code for answer in answers) == {401: 5, 429: 35}

    def test_nobody_is_locked_out_for_good(self, api: Api, alice: User, settings: Settings) -> None:
        settings.RATE_LIMIT_LOGIN = Rate(2, 2)
        for _ in range(2):
            log_in(api, alice.username)
        refusal = log_in(api, alice.username, PASSWORD)
        assert_too_often(refusal, "login")

        # Who keeps trying does not make it longer.
        threading.Event().wait(int(refusal.headers["Retry-After"]) / 2)
        log_in(api, alice.username)
        threading.Event().wait(int(refusal.headers["Retry-After"]) / 2 + 0.1)

        assert log_in(api, alice.username, PASSWORD).status_code == 200

    def test_a_deactivated_account_counts_like_any_other(
        self, api: Api, alice: User, five_guesses: None
    ) -> None:
        deactivate_user(DeactivateUser(UUID(alice.id), None), Cause("shell:test"))
        for left in (4, 3):
            answer = log_in(api, alice.username, PASSWORD)
            assert_problem(answer, 401, "wrong-credentials")
            assert standing(answer)[:2] == ("login", left)

    def test_a_header_does_not_make_another_address(
        self, api: Api, alice: User, five_guesses: None
    ) -> None:
        body = {"username": alice.username, "password": WRONG}
        answers = [
            api.post("/users/login/", body, headers={"X-Forwarded-For": f"192.0.2.{number}"})
            for number in range(6)
        ]

        assert [answer.status_code for answer in answers] == [401] * 5 + [429]

    def test_switched_off_it_says_nothing(self, api: Api, alice: User) -> None:
        for _ in range(12):
            answer = log_in(api, alice.username)
            assert answer.status_code == 401
            assert "RateLimit" not in answer.headers


class TestWaiting:
    """Hashes take their time, and there is an end to those who wait for one."""

    def test_one_who_would_wait_too_long_is_told_at_once(
        self, api: Api, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(accounts.api, "_places", threading.BoundedSemaphore(1))
        with accounts.api._places:
            for answer in (
                log_in(api, alice.username, PASSWORD),
                register(api, "too-busy-for-me"),
                change(api, alice, PASSWORD),
                erase(api, alice, PASSWORD),
            ):
                assert_problem(answer, 503, "passwords-busy")
                assert answer.headers["Retry-After"] == "2"
            assert api.get("/token/", alice).status_code == 200

        assert log_in(api, alice.username, PASSWORD).status_code == 200

    def test_one_address_leaves_places_to_others(
        self, api: Api, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        passwords = AtOnce("passwords", 1)
        monkeypatch.setattr(accounts.api, "passwords", passwords)
        with passwords.one("192.0.2.1"):
            assert log_in(api, alice.username, PASSWORD).status_code == 200
        with passwords.one("127.0.0.1"):
            answer = log_in(api, alice.username, PASSWORD)
            assert_problem(answer, 429, "too-many-at-once")
            assert int(answer.headers["Retry-After"]) > 0

        assert log_in(api, alice.username, PASSWORD).status_code == 200

    def test_a_place_is_taken_until_the_work_has_run_though_nobody_waits_for_it_any_more(
        self, api: Api, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As with a database that is frozen: whoever waits gives up, and the work stays in line.
        passwords = AtOnce("passwords", 1)
        monkeypatch.setattr(accounts.api, "passwords", passwords)
        monkeypatch.setattr(eventstore.database, "SLOW_SECONDS", 0.01)
        monkeypatch.setattr(eventstore.database, "answers", AsyncMock(return_value=False))
        release = threading.Event()
        blocked = [accounts.api._password_threads.submit(release.wait, 30) for _ in range(2)]
        try:
            assert log_in(api, alice.username, PASSWORD).status_code == 503
            assert_problem(log_in(api, alice.username, PASSWORD), 429, "too-many-at-once")
        finally:
            release.set()
        for each in blocked:
            each.result(30)
        wait_for(lambda: not passwords._going, 30, "the work to have run")

    def test_whatever_comes_of_it_the_place_is_given_back(
        self, api: Api, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(accounts.api, "_places", threading.BoundedSemaphore(1))

        assert [log_in(api, alice.username).status_code for _ in range(4)] == [401] * 4


class TestOtherPasswords:
    """Whoever has found a JWT is not to find the password with it."""

    @pytest.mark.parametrize("guess", [change, erase])
    def test_guesses_there_count_with_those_at_the_login(
        self, api: Api, alice: User, five_guesses: None, guess: Any
    ) -> None:
        for _ in range(2):
            log_in(api, alice.username)
        for _ in range(3):
            assert_problem(guess(api, alice, WRONG), 422, "wrong-password")

        assert_too_often(guess(api, alice, PASSWORD), "login")
        assert_too_often(log_in(api, alice.username, PASSWORD), "login")
        assert api.balance(alice) == 4000

    def test_a_right_one_costs_nothing(self, api: Api, alice: User, five_guesses: None) -> None:
        assert standing(change(api, alice, PASSWORD, "another battery"))[:2] == ("login", 5)
        again = api.log_in(alice.id, alice.username, "another battery")
        assert standing(erase(api, again, "another battery"))[:2] == ("login", 5)


class TestRegister:
    def test_so_many_accounts_an_hour_and_no_more(self, api: Api, settings: Settings) -> None:
        settings.RATE_LIMIT_REGISTER = Rate(3, 3600)
        for left in (2, 1, 0):
            answer = register(api, f"one-of-many-{uuid4().hex[:8]}")
            assert answer.status_code == 201
            assert standing(answer)[:2] == ("register", left)

        assert_too_often(register(api, f"one-too-many-{uuid4().hex[:8]}"), "register")

    def test_a_refused_registration_costs_nothing(
        self, api: Api, alice: User, settings: Settings
    ) -> None:
        settings.RATE_LIMIT_REGISTER = Rate(1, 3600)
        for _ in range(3):
            assert_problem(register(api, alice.username), 409, "username-taken")
        assert_problem(register(api, f"weak-{uuid4().hex[:8]}", "password"), 422, "invalid-input")

        assert register(api, f"good-{uuid4().hex[:8]}").status_code == 201


def register(api: Api, name: str, password: str = PASSWORD) -> httpx.Response:
    return api.post("/users/register/", {"username": name, "password": password})


class TestSend:
    @pytest.fixture(autouse=True)
    def three_sends(self, settings: Settings) -> None:
        settings.RATE_LIMIT_SEND = Rate(3, 60)

    def test_so_many_sends_at_both_addresses_together_and_nothing_is_debited_for_more(
        self, api: Api, alice: User, bob: User
    ) -> None:
        conversation = api.post("/conversations/", {}, alice).json()["id"]
        there = f"/conversations/{conversation}/messages/"
        answers = [
            api.send(alice, "hello"),
            api.post(there, {"message": "hello"}, alice),
            api.send(alice, "hello", prefer="respond-async"),
        ]
        assert [answer.status_code for answer in answers] == [201, 201, 202]
        assert [standing(answer)[:2] for answer in answers] == [
            ("send", left) for left in (2, 1, 0)
        ]

        assert_too_often(api.send(alice, "hello"), "send")
        assert_too_often(api.post(there, {"message": "hello"}, alice), "send")
        streamed = api.send(alice, "hello", accept="text/event-stream")
        assert_too_often(streamed, "send")
        assert api.balance(alice) == 3700
        assert api.send(bob, "hello").status_code == 201

    def test_a_repeat_counts_too(self, api: Api, alice: User) -> None:
        statuses = [api.send(alice, "hello", idempotency_key="again").status_code for _ in range(4)]

        assert statuses == [201, 201, 201, 429]
        assert api.balance(alice) == 3900

    def test_a_jwt_that_is_not_good_counts_for_nobody(self, api: Api, alice: User) -> None:
        stranger = User(alice.id, alice.username, alice.jwt[:-4] + "AAAA")
        for _ in range(5):
            assert_problem(api.send(stranger, "hello"), 401, "not-authenticated")

        assert api.send(alice, "hello").status_code == 201

    def test_reading_is_not_limited(self, api: Api, alice: User) -> None:
        for _ in range(5):
            answer = api.get("/token/", alice)
            assert answer.status_code == 200
            assert "RateLimit" not in answer.headers


def test_without_redis_each_process_counts_for_itself(
    api: Api, alice: User, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an outage: the counters of this process are all that there is."""

    @once
    def away() -> Any:
        from accounts.counters import CountersUnavailable

        class Away(MemoryCounters):
            def take(self, key: str, rate: Rate) -> Any:
                raise CountersUnavailable("away")

        return Away()

    monkeypatch.setattr(rate_limits, "_in_redis", away)
    settings.RATE_LIMIT_SEND = Rate(2, 60)

    assert [api.send(alice, "hello").status_code for _ in range(3)] == [201, 201, 429]
