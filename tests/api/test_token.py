"""`GET /token/`"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.api.client import Api, User, assert_problem, places


def test_it_shows_the_signup_grant(api: Api, alice: User) -> None:
    answer = api.get("/token/", alice)
    assert answer.status_code == 200
    assert answer.json() == {"tokens": 4000}


def test_it_shows_every_answered_send_at_once(api: Api, alice: User, bob: User) -> None:
    for sent in range(1, 6):
        assert api.send(alice, "hello").status_code == 201
        assert api.balance(alice) == 4000 - 100 * sent
    assert api.balance(bob) == 4000


def test_it_takes_a_jwt(api: Api) -> None:
    assert_problem(api.get("/token/"), 401, "not-authenticated")


class TestAtAnInstant:
    def at(self, api: Api, user: User, at: str | datetime) -> Any:
        text = at if isinstance(at, str) else at.isoformat()
        return api.get("/token/", user, params={"at": text})

    def lines(self, api: Api, user: User) -> Iterator[tuple[datetime, int]]:
        """When the balance changed and what it was then, oldest first."""
        for line in reversed(api.get("/token/statement/", user).json()):
            yield datetime.fromisoformat(line["at"]), line["balance"]

    def test_it_shows_the_balance_as_it_was(self, api: Api, alice: User) -> None:
        for text in ("hello", "fail", "bye"):
            api.send(alice, text)
        tick = timedelta(microseconds=1)
        balance_before = 0
        for at, balance in self.lines(api, alice):
            answer = self.at(api, alice, at)
            assert answer.status_code == 200
            assert answer.json().keys() == {"tokens", "at"}
            assert (answer.json()["tokens"], instant(answer)) == (balance, at)
            if balance_before:  # the account did not exist before its grant
                assert self.at(api, alice, at - tick).json()["tokens"] == balance_before
            balance_before = balance

    def test_an_offset_counts(self, api: Api, alice: User) -> None:
        *_, (at, _) = self.lines(api, alice)
        elsewhere = at.isoformat().replace("+00:00", "-00:00")
        for text in (at.isoformat(), elsewhere, at.isoformat().replace("+00:00", "Z")):
            answer = self.at(api, alice, text)
            assert (answer.json()["tokens"], instant(answer)) == (4000, at)

    def test_it_shows_every_answered_send_at_once(self, api: Api, alice: User) -> None:
        for sent in range(1, 6):
            api.send(alice, "hello")
            (at, _) = list(self.lines(api, alice))[-1]
            assert self.at(api, alice, at).json()["tokens"] == 4000 - 100 * sent

    def test_everybody_has_a_past_of_their_own(self, api: Api, alice: User, bob: User) -> None:
        api.send(alice, "hello")
        (at, _) = list(self.lines(api, alice))[-1]
        assert self.at(api, bob, at).json()["tokens"] == 4000

    def test_before_the_registration_is_not_found_and_says_why(self, api: Api, alice: User) -> None:
        registered = datetime.fromisoformat(api.get("/users/me/", alice).json()["created_at"])
        assert self.at(api, alice, registered).status_code == 200
        for at in (registered - timedelta(microseconds=1), "0001-01-01T00:00:00+14:00"):
            problem = assert_problem(self.at(api, alice, at), 404, "not-found")
            assert "There was no balance yet: the account was opened at 20" in problem["detail"]

    @pytest.mark.parametrize("at", ["2999-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00"])
    def test_the_future_is_refused(self, api: Api, alice: User, at: str) -> None:
        problem = assert_problem(self.at(api, alice, at), 422, "invalid-input")
        assert places(problem) == [["query", "at"]]
        assert problem["errors"][0]["msg"].startswith("This time has not come yet: it is 20")

    @pytest.mark.parametrize(
        ("at", "why"),
        [
            ("", "is written like"),
            ("yesterday", "is written like"),
            ("2026-11-22", "is written like"),
            ("1795341600", "is written like"),
            ("2026-11-22T10:00:00", "needs an offset"),
            ("2026-11-22T10:00:00 02:00", "%2B"),
            ("2026-02-30T10:00:00Z", "There is no such day, time or offset"),
            ("\0", "is written like"),
            ("9" * 5_000, "is written like"),
            ("' OR 1=1 --", "is written like"),
        ],
    )
    def test_what_is_no_time_is_refused_with_the_reason(
        self, api: Api, alice: User, at: str, why: str
    ) -> None:
        problem = assert_problem(self.at(api, alice, at), 422, "invalid-input")
        assert places(problem) == [["query", "at"]]
        assert why in problem["errors"][0]["msg"]

    def test_it_takes_a_jwt(self, api: Api) -> None:
        answer = api.get("/token/", params={"at": "2026-11-22T10:00:00Z"})
        assert_problem(answer, 401, "not-authenticated")


def instant(answer: Any) -> datetime:
    return datetime.fromisoformat(answer.json()["at"])
