"""`GET /token/statement/`"""

import re
from datetime import datetime, timedelta

import pytest

from tests.api.client import Api, User, assert_problem, places


def test_it_lists_what_tokens_came_from_and_went_to_newest_first(api: Api, alice: User) -> None:
    paid = api.send(alice, "hello").headers["location"].split("/")[2]
    (lost,) = re.findall(r"message (\S+) ", api.send(alice, "fail").json()["detail"])
    answer = api.get("/token/statement/", alice)
    assert answer.status_code == 200
    assert [{**line, "at": None} for line in answer.json()] == [
        entry(4, "refunded", 100, 3900, message_id=lost, reason="responder"),
        entry(3, "debited", 100, 3800, message_id=lost),
        entry(2, "debited", 100, 3900, message_id=paid),
        entry(1, "granted", 4000, 4000, reason="signup"),
    ]


def test_its_times_are_in_utc_and_never_go_back(api: Api, alice: User) -> None:
    for _ in range(3):
        api.send(alice, "hello")
    lines = api.get("/token/statement/", alice).json()
    times = [datetime.fromisoformat(line["at"]) for line in reversed(lines)]
    assert times == sorted(times)
    assert times[0].utcoffset() == timedelta(0)


def test_it_shows_every_answered_send_at_once(api: Api, alice: User) -> None:
    for sent in range(1, 6):
        assert api.send(alice, "hello").status_code == 201
        newest = api.get("/token/statement/?limit=1", alice).json()[0]
        assert (newest["entry"], newest["balance"]) == (1 + sent, 4000 - 100 * sent)


def test_pages_follow_their_links_to_the_end(api: Api, alice: User) -> None:
    for _ in range(4):
        api.send(alice, "hello")
    everything = api.get("/token/statement/", alice).json()
    found, path = [], "/token/statement/?limit=2"
    while path:
        page = api.get(path, alice)
        assert 0 < len(page.json()) <= 2
        found += page.json()
        assert len(found) <= len(everything)
        path = page.links.get("next", {}).get("url", "")
    assert found == everything
    assert [line["entry"] for line in found] == [5, 4, 3, 2, 1]


def test_there_is_no_link_behind_the_last_page(api: Api, alice: User) -> None:
    api.send(alice, "hello")
    assert "link" not in api.get("/token/statement/?limit=2", alice).headers
    assert "link" in api.get("/token/statement/?limit=1", alice).headers


def test_nothing_stands_before_the_first_entry(api: Api, alice: User) -> None:
    page = api.get("/token/statement/?before=1", alice)
    assert page.status_code == 200
    assert page.json() == []


def test_everybody_has_a_statement_of_their_own(api: Api, alice: User, bob: User) -> None:
    api.send(alice, "hello")
    assert [line["kind"] for line in api.get("/token/statement/", bob).json()] == ["granted"]


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "1e3", "ten", "", "9" * 5_000, "1 OR 1=1"])
def test_a_limit_that_makes_no_sense_is_refused(api: Api, alice: User, limit: str) -> None:
    answer = api.get("/token/statement/", alice, params={"limit": limit})
    assert places(assert_problem(answer, 422, "invalid-input")) == [["query", "limit"]]


@pytest.mark.parametrize("before", ["0", "-1", str(2**63), "1e3", "", "\0", "9" * 5_000, "' OR 1"])
def test_a_before_that_is_no_entry_is_refused(api: Api, alice: User, before: str) -> None:
    answer = api.get("/token/statement/", alice, params={"before": before})
    assert places(assert_problem(answer, 422, "invalid-input")) == [["query", "before"]]


def test_it_takes_a_jwt(api: Api) -> None:
    assert_problem(api.get("/token/statement/"), 401, "not-authenticated")


def entry(
    number: int,
    kind: str,
    amount: int,
    balance: int,
    *,
    message_id: str | None = None,
    reason: str | None = None,
) -> dict[str, object]:
    return {
        "entry": number,
        "at": None,
        "kind": kind,
        "amount": amount,
        "balance": balance,
        "message_id": message_id,
        "reason": reason,
    }
